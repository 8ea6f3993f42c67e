"""Checkpoints of a training run: everything a resumed run needs, in one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import Tensor

from edgemtl.errors import UserError
from edgemtl.files.disk import write_atomic
from edgemtl.files.json import parse_json
from edgemtl.files.seals import sealed
from edgemtl.models import check_sha256, read_state, state_sha256
from edgemtl.train.recipe import recipe_difference

__all__ = ["CHECKPOINT_FILE", "load_checkpoint", "save_checkpoint"]

CHECKPOINT_FILE = "checkpoint.safetensors"
SCHEMA = "edgemtl.checkpoint/1"


def save_checkpoint(
    path: Path, step: int, fingerprint: str, state: Mapping[str, Tensor], recipe: Mapping[str, Any]
) -> None:
    """Write all tensors of the run after `step` steps; `fingerprint` and `recipe` say of which run."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    header = sealed(
        {
            "schema": SCHEMA,
            "step": step,
            "fingerprint": fingerprint,
            "recipe": recipe,
            "weights_sha256": state_sha256(tensors),
        }
    )
    write_atomic(path, save(tensors, {"edgemtl": json.dumps(header)}))


def load_checkpoint(path: Path, fingerprint: str, recipe: Mapping[str, Any]) -> tuple[int, dict[str, Tensor]] | None:
    """The step and tensors of a checkpoint, None where there is no file.

    `UserError` where it belongs to another run; it names what differs from this one's `recipe`.
    """
    if not path.exists() and not path.is_symlink():
        return None
    try:
        state, metadata = read_state(path, "checkpoint")
        header = parse_json(metadata.get("edgemtl", "{}"))
    except (UserError, ValueError) as error:
        raise UserError(f"{error}; delete it to begin anew") from error
    if not isinstance(header, dict) or header.get("schema") != SCHEMA:
        raise UserError(f"{path} is no checkpoint that this version wrote: choose another --out or delete it")
    if header.get("fingerprint") != fingerprint:
        numbers = recipe_difference(header.get("recipe"), recipe)
        other = f"recipe: {numbers}; resume it with the same," if numbers else "space or other data:"
        raise UserError(f"checkpoint {path} belongs to a run with another {other} choose another --out, or delete it")
    if not isinstance(header.get("step"), int):
        raise UserError(f"checkpoint {path} does not say its step: it is damaged; delete it to begin anew")
    check_sha256(state, header, path, "checkpoint")
    return header["step"], state
