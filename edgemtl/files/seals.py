"""Hashes: of files, and of JSON values that carry their own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgemtl.errors import UserError
from edgemtl.files.disk import open_regular, reading

__all__ = ["check_seal", "sealed", "sha256"]

_CHUNK_BYTES = 2**20


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a regular file's content; raises `UserError` where it cannot be read."""
    digest = hashlib.sha256()
    with open_regular(path, "file") as file, reading(f"file {path}"):
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """JSON values with the hash of all of them, as `sha256`: `check_seal` then detects every change."""
    return {**content, "sha256": _seal(content)}


def check_seal(content: Mapping[str, Any], path: Path, what: str) -> None:
    """Raise `UserError` where values that `sealed` made were changed, or carry no hash."""
    values = {key: value for key, value in content.items() if key != "sha256"}
    if content.get("sha256") != _seal(values):
        raise UserError(f"{what} {path} was changed after edgemtl wrote it: its SHA-256 is another; copy it again")


def _seal(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
