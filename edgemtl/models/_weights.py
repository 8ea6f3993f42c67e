"""Supernet files: safetensors with a header that says what they hold.

Weights are stored in half precision (a supernet of 5 million parameters is 10 MB) and rounded to it before anything is
measured, so that what is loaded is what was scored.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from edgemtl._files import write_atomic
from edgemtl.errors import UserError
from edgemtl.models._supernet import Supernet

__all__ = ["is_supernet", "load_supernet", "read_header", "save_supernet"]

SCHEMA = "edgemtl.supernet/1"
_HEADER_LIMIT_BYTES = 16 * 2**20


def save_supernet(supernet: Supernet, path: Path, header: dict[str, Any]) -> None:
    """Write the shared parameters and a JSON header (space, its identity, data, seed, command …), atomically."""
    tensors = {name: tensor.detach().half().contiguous() for name, tensor in supernet.shared.items()}
    write_atomic(path, save(tensors, {"edgemtl": json.dumps({"schema": SCHEMA, **header})}))


def is_supernet(path: Path) -> bool:
    """Whether a file is a supernet that edgemtl wrote."""
    try:
        return bool(read_header(path))
    except UserError:
        return False


def read_header(path: Path) -> dict[str, Any]:
    """The header of a supernet file; raises `UserError` naming what is wrong with a damaged or foreign one."""
    _refuse_foreign(path)
    try:
        with safe_open(path, framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("edgemtl", "{}"))
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise UserError(f"supernet {path} cannot be read: {error}; it was truncated or damaged") from error
    if not isinstance(header, dict) or header.get("schema") != SCHEMA:
        raise UserError(f"supernet {path} does not carry the schema {SCHEMA}: it was not written by `edgemtl train`")
    return header


def load_supernet(supernet: Supernet, path: Path, identity: str) -> dict[str, Any]:
    """Fill a supernet from a file made for the same space and tasks (`identity`), and return the file's header."""
    header = read_header(path)
    if header.get("identity") != identity:
        trained = ", ".join(map(str, header.get("tasks", []))) or "other tasks"
        raise UserError(
            f"supernet {path} was trained for space {header.get('space')!r} and tasks {trained}, not for these: "
            "choose its space and data, or train one with `edgemtl train`"
        )
    table = supernet.shared
    with safe_open(path, framework="pt") as file, torch.no_grad():
        names = set(file.keys())
        if names != set(table):
            raise UserError(f"supernet {path} lacks or adds tensors ({len(names ^ set(table))} differ): it is damaged")
        for name, parameter in table.items():
            tensor = file.get_tensor(name)
            if tensor.shape != parameter.shape:
                raise UserError(
                    f"supernet {path}: tensor {name} is {tuple(tensor.shape)}, {tuple(parameter.shape)} is wanted"
                )
            parameter.copy_(tensor)
    return header


def _refuse_foreign(path: Path) -> None:
    try:
        with path.open("rb") as file:
            start = file.read(8)
        size = path.stat().st_size
    except OSError as error:
        raise UserError(f"cannot read supernet {path}: {error.strerror or error}") from error
    if start[:2] in (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK"):
        raise UserError(f"supernet {path} is a pickle, which could run code: a safetensors file is wanted")
    if len(start) < 8 or struct.unpack("<Q", start)[0] > min(_HEADER_LIMIT_BYTES, size):
        raise UserError(f"supernet {path} is not a safetensors file, or it was truncated ({size} bytes)")
