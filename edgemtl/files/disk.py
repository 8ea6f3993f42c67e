"""Atomic writes, and reads of untrusted files: regular ones of a bounded size.

A FIFO would be waited for without end and a device has no end, so that sizes are checked while reading.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
import tempfile
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

from edgemtl.errors import ReadError, UserError
from edgemtl.files.json import parse_json

__all__ = [
    "check_own",
    "clear_parts",
    "kind_name",
    "open_regular",
    "read_bytes",
    "read_json",
    "read_text",
    "reading",
    "write_atomic",
    "write_json",
]

JSON_LIMIT_BYTES = 64 * 2**20
LARGEST_BYTES = 2**32
"""Limit of any file that is read or hashed: a sparse file may have any size without taking disk space."""
_CHUNK_BYTES = 2**20
_KIND_NAMES = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe (FIFO)",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}
_PART = re.compile(r"^\..+\.[a-z0-9_]{8}\.edgemtl$")
"""Temporary name of a file while it is written."""


def write_atomic(path: Path, content: bytes | str) -> None:
    """Write `content` to a temporary file, flush it to disk, then rename: readers see the old file or the new one.

    Raises `UserError` where the system refuses (a full disk, a folder that may not be written); nothing is left behind.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = _new_part(path)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
    except OSError as error:
        raise UserError(
            f"cannot write {path} ({len(data)} bytes): {error.strerror or error}; free space or choose another --out"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()


def _new_part(path: Path) -> tuple[int, str]:
    """A new temporary file for `path`, open and locked: the lock shows that its writer is alive."""
    while True:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=_part_prefix(path.name), suffix=".edgemtl")
        with contextlib.suppress(OSError):  # a file system without locks: what is left there is never cleared
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, name
        os.close(handle)  # it was cleared between the two lines above


def _part_prefix(name: str) -> str:
    """Prefix of a temporary file's name: as many whole letters of the file's own name as fit."""
    return f".{os.fsencode(name)[:200].decode(errors='ignore')}."


def clear_parts(folder: Path, of: str | None = None) -> None:
    """Remove, from a folder and those in it, the half-written files of processes that were killed.

    With `of` only those of the file of that name, in the folder itself.
    """
    for parent, inner, names in os.walk(folder):
        if of is not None:
            inner.clear()
            names = [name for name in names if name.startswith(_part_prefix(of))]
        for name in filter(_PART.match, names):
            with contextlib.suppress(OSError):  # being written now, or not ours
                handle = os.open(Path(parent) / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    (Path(parent) / name).unlink()
                finally:
                    os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically; NaN and infinities are refused (they are not JSON)."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


@contextlib.contextmanager
def reading(file: str) -> Iterator[None]:
    """Turn a refusal of the system inside into a `ReadError` of `file`, a description and its path."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise ReadError(file, getattr(error, "strerror", None) or str(error)) from error


def kind_name(kind: int) -> str:
    """Kinds of file that are not regular, in words, by `stat.S_IFMT`: "a pipe (FIFO)"."""
    return _KIND_NAMES.get(kind, "no file")


def open_regular(path: Path, what: str) -> BufferedReader:
    """Open a regular file of up to 4 GiB for reading; raises `ReadError` where it cannot be, and for anything else."""
    file = f"{what} {path}"
    with reading(file):
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe without a writer opens at once
    status = os.fstat(handle)
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        os.close(handle)
        raise ReadError(file, f"it is {kind_name(kind)}, a regular file is wanted")
    if status.st_size > LARGEST_BYTES:
        os.close(handle)
        raise _too_large(file, LARGEST_BYTES)
    return os.fdopen(handle, "rb")


def _too_large(file: str, limit_bytes: int) -> ReadError:
    return ReadError(file, f"it is larger than {limit_bytes} bytes, the most that is read: give another file")


def check_own(path: Path, mark: str, what: str) -> None:
    """Raise `UserError` if `path` is a file other than a `what` ("report") of ours: its first 64 KiB lack the `mark`.

    Half-written versions of it from killed processes are removed.
    """
    clear_parts(path.parent, path.name)
    if path.exists():
        with open_regular(path, what) as file:
            if mark.encode() not in file.read(1 << 16):
                raise UserError(f"{path} exists and is no {what}: choose another --out, it is not overwritten")


def read_bytes(path: Path, what: str, limit_bytes: int) -> bytes:
    """Content of a regular file of at most `limit_bytes`; no byte more is read.

    `what` names it in errors ("run", "manifest"). Raises `UserError`, one line, for anything else.
    """
    file, chunks, size_bytes = f"{what} {path}", [], 0
    with open_regular(path, what) as stream, reading(file):
        at_once = max(_CHUNK_BYTES, os.fstat(stream.fileno()).st_size + 1)  # so that nothing is held twice
        while chunk := stream.read(min(at_once, limit_bytes + 1 - size_bytes)):
            chunks.append(chunk)
            size_bytes += len(chunk)
    if size_bytes > limit_bytes:
        raise _too_large(file, limit_bytes)
    return b"".join(chunks)


def read_text(path: Path, what: str, limit_bytes: int) -> str:
    """Text of a regular file of at most `limit_bytes`, in UTF-8; raises `UserError` like `read_bytes`."""
    try:
        return read_bytes(path, what, limit_bytes).decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{what} {path} is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8"
        ) from error


def read_json(path: Path, what: str) -> Any:
    """Read a JSON file of a bounded size; `what` names it in the error ("run", "manifest").

    Raises `UserError` for a file that is missing, no regular one, too large, or no JSON as `parse_json` reads it.
    """
    try:
        return parse_json(read_bytes(path, what, JSON_LIMIT_BYTES))
    except ValueError as error:
        raise UserError(f"{what} {path} is not valid JSON ({error}): it was damaged or is another file") from error
