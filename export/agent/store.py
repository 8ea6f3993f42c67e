"""Files by their SHA-256: they come in pieces, go on where a connection was cut, and count once their hash fits."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any, Mapping

from edgemtl.errors import UserError
from edgemtl.files.paths import inside
from edgemtl.files.seals import sha256

__all__ = ["lay_out", "missing_files", "receive_piece"]

ROOM_BYTES = 16 * 2**20
"""Left free on the board's disk beside what is copied."""


def missing_files(store: Path, sizes: Mapping[str, int]) -> dict[str, int]:
    """Of files, by hash, those that are not whole yet, with the bytes of each that are here.

    Raises `UserError` where they do not fit on the disk.
    """
    missing = {
        digest: (store / f"{_digest(digest)}.part").stat().st_size if (store / f"{digest}.part").exists() else 0
        for digest in sizes
        if not (store / _digest(digest)).exists()
    }
    wanted = sum(sizes[digest] - there for digest, there in missing.items())
    free = shutil.disk_usage(store).free
    if wanted + ROOM_BYTES > free:
        raise UserError(
            f"no space left: the engine takes {wanted} bytes more in {store.parent.parent}, where {free} are free "
            f"({ROOM_BYTES} of them stay so): free some, or set TMPDIR there to a larger disk"
        )
    return missing


def receive_piece(store: Path, fields: Mapping[str, Any], piece: bytes) -> dict[str, Any]:
    """Write a piece of a file at its offset; the last one completes it. Raises `UserError` where its hash differs."""
    digest, size = _digest(fields["sha256"]), int(fields["size"])
    if (store / digest).exists():
        return {}
    part = store / f"{digest}.part"
    try:
        handle = os.open(part, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            written = 0
            while written < len(piece):
                written += os.pwrite(handle, piece[written:], int(fields["offset"]) + written)
        finally:
            os.close(handle)
    except OSError as error:
        raise UserError(f"the engine cannot be written to {store}: {error.strerror}") from error
    if part.stat().st_size == size:
        if sha256(part) != digest:
            part.unlink()
            raise UserError("a file of the engine came damaged: its SHA-256 is another; measure again")
        part.replace(store / digest)
    return {}


def lay_out(store: Path, folder: Path, files: Mapping[str, str]) -> None:
    """Make an engine's folder of files from the store; raises `UserError` for a name that leaves it."""
    folder.mkdir(mode=0o700)
    for name, digest in files.items():
        path = inside(folder, name, "engine")
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(store / _digest(digest), path)


def _digest(text: Any) -> str:
    if not isinstance(text, str) or not re.fullmatch("[0-9a-f]{64}", text):
        raise UserError("a file of the engine has no SHA-256")
    return text
