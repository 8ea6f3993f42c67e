"""Atomic writes, and reads of untrusted files: regular ones of a bounded size, inside their folder.

A FIFO would block forever and a device has no end, so sizes are checked while reading. Files that are read
in a folder that came from elsewhere lie inside it, links included.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any

from edgemtl.errors import UserError, brief
from edgemtl.files.json import parse_json

__all__ = [
    "FILE_NAME_BYTES",
    "check_folder",
    "check_own",
    "check_seal",
    "clear_parts",
    "fits",
    "inside",
    "open_regular",
    "read_bytes",
    "read_json",
    "read_text",
    "sealed",
    "sha256",
    "within",
    "write_atomic",
    "write_json",
]

JSON_LIMIT_BYTES = 64 * 2**20
LARGEST_BYTES = 2**32
"""Limit of any file that is read or hashed: a sparse file may have any size without taking disk space."""
FILE_NAME_BYTES, _PATH_BYTES = 255, 4096
"""Limits of file systems on a name and on a whole path, in bytes."""
_CHUNK_BYTES = 2**20
_KINDS = {
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
    for position, inner, names in os.walk(folder):
        if of is not None:
            inner.clear()
            names = [name for name in names if name.startswith(_part_prefix(of))]
        for name in filter(_PART.match, names):
            with contextlib.suppress(OSError):  # being written now, or not ours
                handle = os.open(Path(position) / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    (Path(position) / name).unlink()
                finally:
                    os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically; NaN and infinities are refused (they are not JSON)."""
    write_atomic(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def within(folder: Path, path: Path) -> bool:
    """Whether a path lies in a folder, links followed."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError, ValueError):  # a loop of links, a NUL
        return False


def fits(path: str) -> bool:
    """Whether file systems take a path and each name in it: asked for a longer one, the system raises an error."""
    sizes = [len(part.encode(errors="surrogatepass")) for part in (*PurePosixPath(path).parts, path)]
    return max(sizes[:-1], default=0) <= FILE_NAME_BYTES and sizes[-1] <= _PATH_BYTES


def inside(folder: Path, name: str, what: str) -> Path:
    """The path that `name` has in a folder; `what` names the folder in errors ("bundle", "run").

    Raises `UserError` where it leaves the folder: by a root, by `..`, or through a link; and where it is too long.
    """
    if not fits(name):
        raise UserError(
            f"{what} {folder} names {brief(name)}, which is too long: at most {FILE_NAME_BYTES} bytes a name are "
            f"allowed; do not use this {what}"
        )
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or "\\" in name or not within(folder, folder / relative):
        raise UserError(
            f"{what} {folder} names {name!r:.200}, which lies outside it: refused; do not use this {what}, or put the "
            "file itself there"
        )
    return folder / relative


def check_folder(folder: Path, what: str) -> None:
    """Whether everything in a folder may be read, written and removed there; `what` names it in errors ("run").

    Raises `UserError` for a link in it, however deep, that leads out of it, and for what is neither file nor folder: a
    reading a pipe would block forever. A folder that does not exist yet is fine.
    """
    for position, folders, files in os.walk(folder):
        for path in (Path(position, name) for name in (*folders, *files)):
            try:
                if path.is_symlink() and not within(folder, path):
                    raise UserError(
                        f"{what} {folder} holds the link {path.relative_to(folder)}, which leads out of it: refused; "
                        "put the file or folder itself there"
                    )
                kind = stat.S_IFMT(path.stat().st_mode)
            except OSError:  # removed meanwhile, or a dangling link
                continue
            if kind not in (stat.S_IFREG, stat.S_IFDIR):
                kind_name = _KINDS.get(kind, "no file")
                raise UserError(
                    f"{what} {folder} holds {path.relative_to(folder)}, which is {kind_name}: refused; remove it"
                )


def open_regular(path: Path, what: str) -> IO[bytes]:
    """Open a regular file of up to 4 GiB for reading; raises `UserError` where it cannot be, and for anything else."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # a pipe without a writer opens at once
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {what} {path}: {getattr(error, 'strerror', None) or error}") from error
    status = os.fstat(handle)
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG or status.st_size > LARGEST_BYTES:
        os.close(handle)
        if kind == stat.S_IFREG:
            raise UserError(
                f"{what} {path} is larger than {LARGEST_BYTES} bytes, the most that is read: give another file"
            )
        kind_name = _KINDS.get(kind, "no file")
        raise UserError(f"cannot read {what} {path}: it is {kind_name}, a regular file is wanted")
    return os.fdopen(handle, "rb")


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
    chunks, size_bytes = [], 0
    try:
        with open_regular(path, what) as file:
            at_once = max(_CHUNK_BYTES, os.fstat(file.fileno()).st_size + 1)  # so that nothing is held twice
            while chunk := file.read(min(at_once, limit_bytes + 1 - size_bytes)):
                chunks.append(chunk)
                size_bytes += len(chunk)
    except OSError as error:
        raise UserError(f"cannot read {what} {path}: {error.strerror or error}") from error
    if size_bytes > limit_bytes:
        raise UserError(f"{what} {path} is larger than {limit_bytes} bytes, the most that is read: give another file")
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


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a regular file's content; raises `UserError` where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with open_regular(path, "file") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    except OSError as error:
        raise UserError(f"cannot read file {path}: {error.strerror or error}") from error
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
