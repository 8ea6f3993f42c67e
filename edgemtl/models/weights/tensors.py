"""Tensors from untrusted files, checked before a net is filled with them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgemtl.errors import UserError
from edgemtl.files.safetensors import open_tensors
from edgemtl.files.seals import check_seal

__all__ = ["check_sha256", "check_state", "read_state", "state_sha256"]


def read_state(path: Path, what: str) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors of a safetensors file by name, and its metadata.

    Raises `UserError` like `open_tensors`, and where a number is NaN or infinite.
    """
    with open_tensors(path, what, "pt") as file:
        state: dict[str, Tensor] = {name: file[name] for name in file.names}
        metadata = dict(file.metadata)
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise UserError(f"{what} {path}: tensor {name:.100} holds NaN or infinity: it is damaged")
    return state, metadata


def check_state(state: Mapping[str, Tensor], wanted: Mapping[str, Tensor], path: Path, what: str) -> None:
    """Whether tensors can be those of a net whose own are `wanted`.

    Raises `UserError` for one that is missing or too many, of another shape or type, and for a variance below zero.
    """
    if state.keys() != wanted.keys():
        differ = sorted(state.keys() ^ wanted.keys())
        raise UserError(
            f"{what} {path} cannot be read: they lack or add tensors ({len(differ)} differ, {differ[0]:.100} first)"
        )
    for name, tensor in state.items():
        given, needed = ((tuple(each.shape), str(each.dtype)) for each in (tensor, wanted[name]))
        if given != needed:
            raise UserError(
                f"{what} {path}: tensor {name:.100} is {given[0]} of {given[1]}, {needed[0]} of {needed[1]} is wanted"
            )
        if name.endswith("running_var") and (tensor < 0).any():
            raise UserError(f"{what} {path}: the variance {name:.100} is below zero: it is damaged")


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """Hash of tensors: their names, types, shapes and values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} ".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def check_sha256(state: Mapping[str, Tensor], header: Mapping[str, Any], path: Path, what: str) -> None:
    """Raise `UserError` where a file's sealed header, or the hash of its tensors in it, does not match."""
    if "sha256" not in header:  # supernets that were trained before files carried hashes
        return
    check_seal(header, path, what)
    if header.get("weights_sha256") != state_sha256(state):
        raise UserError(f"{what} {path} was changed after edgemtl wrote it: its SHA-256 is another; copy it again")
