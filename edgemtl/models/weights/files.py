"""Supernet files: safetensors with a header that says what they hold.

Weights are stored in half precision (a supernet of 5 million parameters is 10 MB) and rounded to it before anything is
measured, so that what is loaded is what was scored.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from edgemtl.errors import UserError, brief
from edgemtl.files.disk import write_atomic
from edgemtl.files.json import check_schema, parse_json
from edgemtl.files.safetensors import open_tensors
from edgemtl.files.seals import sealed
from edgemtl.models.nets.supernet import SharedWeights
from edgemtl.models.weights.tensors import check_sha256, read_state, state_sha256

__all__ = ["is_supernet", "load_supernet", "read_header", "read_supernet", "save_supernet"]

SCHEMA = "edgemtl.supernet/1"


def save_supernet(supernet: SharedWeights, path: Path, header: dict[str, Any]) -> None:
    """Write the shared parameters and a JSON header (space, its fingerprint, data, seed, command …), atomically."""
    tensors = {name: tensor.detach().half().cpu().contiguous() for name, tensor in supernet.shared.items()}
    own = {key: value for key, value in header.items() if key != "sha256"}
    header = sealed({"schema": SCHEMA, **own, "weights_sha256": state_sha256(tensors)})
    write_atomic(path, save(tensors, {"edgemtl": json.dumps(header)}))


def is_supernet(path: Path) -> bool:
    """Whether a file is a supernet that edgemtl wrote."""
    try:
        return bool(read_header(path))
    except UserError:
        return False


def read_header(path: Path) -> dict[str, Any]:
    """The header of a supernet file; raises `UserError` naming what is wrong with a damaged or foreign one."""
    with open_tensors(path, "supernet", "pt") as file:
        return _header(file.metadata, path)


def read_supernet(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and header of a supernet file; raises `UserError` where it is damaged, was changed or is none."""
    state, metadata = read_state(path, "supernet")
    header = _header(metadata, path)
    check_sha256(state, header, path, "supernet")
    return state, header


def load_supernet(supernet: SharedWeights, path: Path, fingerprint: str) -> dict[str, Any]:
    """Fill a supernet from a file made for the same space and tasks (`fingerprint`), and return the file's header."""
    state, header = read_supernet(path)
    if header.get("fingerprint") != fingerprint:
        tasks = header.get("tasks")
        trained = ", ".join(map(str, tasks)) if isinstance(tasks, list) and tasks else "other tasks"
        raise UserError(
            f"supernet {path} was trained for space {brief(header.get('space'))} and tasks {trained:.200}, not for "
            "these: choose its space and data, or train one with `edgemtl train`, whose --weights takes what matches"
        )
    table = supernet.shared
    differ = state.keys() ^ set(table)
    if differ:
        raise UserError(f"supernet {path} lacks or adds tensors ({len(differ)} differ): it is damaged")
    for name, parameter in table.items():
        tensor = state[name]
        if tensor.shape != parameter.shape or not tensor.is_floating_point():
            raise UserError(
                f"supernet {path}: tensor {name} is {tuple(tensor.shape)} of {tensor.dtype}, {tuple(parameter.shape)} "
                "of floats is wanted"
            )
    with torch.no_grad():
        for name, parameter in table.items():
            parameter.copy_(state[name])
    return header


def _header(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    try:
        header = parse_json(metadata.get("edgemtl", "{}"))
    except ValueError as error:
        raise UserError(f"supernet {path}: its header is no JSON ({error}); it was truncated or damaged") from error
    check_schema(header, f"supernet {path}", SCHEMA, "give a file that `edgemtl train` wrote")
    fields: dict[str, Any] = header
    return fields
