"""Ownership of folders: one process at a time, and half-written files of killed processes are cleared by the next."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import socket
import stat
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path

from edgemtl.errors import UserError
from edgemtl.files.disk import clear_parts
from edgemtl.files.paths import within
from edgemtl.files.seals import sha256

__all__ = ["LOCK_FILE", "claim", "remove_written", "scratch_beside"]

LOCK_FILE = ".edgemtl.lock"
"""The kernel's lock on it decides, and ends with its process in any case; its content is for people."""
_SCRATCH = ".new"
_held: set[int] = set()


def _let_go() -> None:
    """A forked child shares its parent's locks, and would hold them longer than the parent lives."""
    for handle in _held:
        os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_let_go)


@contextlib.contextmanager
def claim(folder: Path, verb: str, of: Path | None = None) -> Iterator[None]:
    """Own `folder` while the block runs; half-written files of killed processes are removed first.

    The folder is created if it is missing, and removed if the block leaves it empty. Raises `UserError` where
    another process owns it, naming both, and where the system refuses. A scratch folder says what it is
    `of`, the name that people know.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder} is a file, a folder is wanted: choose another --out")
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    handle: int | None = None
    try:
        handle = _lock(folder, verb, of or folder)
        clear_parts(folder)
        _clear_scratch(folder)
        yield
    finally:
        if handle is not None:
            with contextlib.suppress(OSError):
                if of is None or {*folder.iterdir()} == {folder / LOCK_FILE}:  # else it records whose scratch is left
                    (folder / LOCK_FILE).unlink()
            _held.discard(handle)
            os.close(handle)
        with contextlib.suppress(OSError):  # the first one that is not empty ends it
            for path in missing:
                path.rmdir()


def _lock(folder: Path, verb: str, shown: Path) -> int:
    """Take the lock and return its open file."""
    path = folder / LOCK_FILE
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
        except FileNotFoundError:  # its last owner has just removed the folder
            continue
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror or error}; choose another --out") from error
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise UserError(f"{path} is no file that edgemtl wrote: choose another --out")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = _owner(os.read(handle, 1 << 12))
            os.close(handle)
            raise UserError(f"{shown} is in use by {owner}: wait until it ends, or choose another --out") from None
        except OSError as error:
            os.close(handle)
            raise UserError(f"cannot lock {path}: {error.strerror or error}; choose another --out") from error
        if path.exists() and path.stat().st_ino == os.fstat(handle).st_ino:
            break
        os.close(handle)  # its last owner has just removed the file
    _held.add(handle)
    since = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
    content = {"verb": verb, "pid": os.getpid(), "host": socket.gethostname(), "since": since}
    with contextlib.suppress(OSError):  # a full disk has no room for the lock's content; the lock holds anyway
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(content).encode(), 0)
    return handle


def _owner(content: bytes) -> str:
    """The owner of a lock, in words."""
    try:
        owner = json.loads(content)
        who = f"edgemtl {owner['verb']!s:.20}, process {int(owner['pid'])} on {owner['host']!s:.60}"
        return f"{who} since {owner['since']!s:.30}"
    except (ValueError, KeyError, TypeError, RecursionError):
        return "another process"


@contextlib.contextmanager
def scratch_beside(folder: Path, verb: str) -> Iterator[Path]:
    """An empty folder next to `folder`, on the same file system, removed at the end in any case.

    It belongs to one process at a time, so it claims `folder` too; leftovers of a killed process are cleared. Raises
    `UserError` as `claim` does.
    """
    scratch = folder.with_name(f".{folder.name}{_SCRATCH}")
    strange = scratch.is_symlink() or (
        scratch.is_dir() and not (scratch / LOCK_FILE).exists() and any(scratch.iterdir())
    )
    if strange:
        raise UserError(f"{scratch} is in the way, and edgemtl did not write it: move it, or choose another --out")
    if folder.parent.is_dir():
        _clear_scratch(folder.parent)
    try:
        with claim(scratch, verb, folder):
            try:
                made = scratch / folder.name
                made.mkdir()
                yield made
            finally:
                _empty(scratch)
    finally:
        with contextlib.suppress(OSError):  # it was there, empty, where a process was killed as it made it
            scratch.rmdir()


def _clear_scratch(folder: Path) -> None:
    """Remove the scratch folders in a folder whose processes have ended."""
    for scratch in folder.glob(f".*{_SCRATCH}"):
        if scratch.is_dir() and not scratch.is_symlink() and (scratch / LOCK_FILE).is_file():
            with contextlib.suppress(UserError, OSError):  # in use, or not ours to remove
                with claim(scratch, "export", scratch):
                    _empty(scratch)
                scratch.rmdir()


def _empty(scratch: Path) -> None:
    for path in scratch.iterdir():
        if path.name == LOCK_FILE:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def remove_written(folder: Path, files: Mapping[str, str]) -> None:
    """Remove those of `files` (paths in the folder, with their SHA-256) that are still what was written.

    Changed files, and files outside the folder or behind a link, stay; so does every folder that still holds
    something.
    """
    for name, digest in files.items():
        path = folder / name
        if within(folder, path.parent) and path.is_file() and not path.is_symlink() and sha256(path) == digest:
            path.unlink()
            with contextlib.suppress(OSError):
                for parent in path.parents:
                    if parent == folder:
                        break
                    parent.rmdir()
