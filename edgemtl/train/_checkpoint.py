"""Checkpoints of a training run: everything a resumed run needs, in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from edgemtl._files import write_atomic
from edgemtl.errors import UserError

__all__ = ["load_checkpoint", "save_checkpoint"]

SCHEMA = "edgemtl.checkpoint/1"


def save_checkpoint(path: Path, step: int, identity: str, state: Mapping[str, Tensor]) -> None:
    """Write all tensors of the run after `step` steps; `identity` says which run they belong to."""
    header = {"edgemtl": json.dumps({"schema": SCHEMA, "step": step, "identity": identity})}
    write_atomic(path, save({name: tensor.detach().contiguous() for name, tensor in state.items()}, header))


def load_checkpoint(path: Path, identity: str) -> tuple[int, dict[str, Tensor]] | None:
    """The step and tensors of a checkpoint (None: there is no file); `UserError` where it belongs to another run."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            header: dict[str, Any] = json.loads((file.metadata() or {}).get("edgemtl", "{}"))
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise UserError(f"checkpoint {path} cannot be read ({error}): delete it to begin anew") from error
    if header.get("schema") != SCHEMA or header.get("identity") != identity:
        raise UserError(
            f"checkpoint {path} belongs to a run with another space, data or recipe: choose another --out or delete it"
        )
    return int(header["step"]), state


def optimizer_state(optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str]) -> dict[str, Tensor]:
    """The optimizer's tensors by parameter name."""
    return {
        f"optimizer.{key}.{names[parameter]}": value
        for parameter, values in optimizer.state.items()
        for key, value in values.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(
    optimizer: torch.optim.Optimizer, names: Mapping[Tensor, str], state: Mapping[str, Tensor]
) -> None:
    """Put back what `optimizer_state` gave."""
    for parameter, name in names.items():
        found = {
            key.split(".")[1]: value
            for key, value in state.items()
            if key.startswith("optimizer.") and key.split(".", 2)[2] == name
        }
        if found:
            optimizer.state[parameter] = found
