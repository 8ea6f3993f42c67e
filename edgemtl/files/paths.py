"""Untrusted paths: files that a folder names lie inside it, links included."""

from __future__ import annotations

import os
import stat
from pathlib import Path, PurePosixPath

from edgemtl.errors import UserError, brief
from edgemtl.files.disk import kind_name

__all__ = ["FILE_NAME_BYTES", "check_folder", "fits", "inside", "within"]

FILE_NAME_BYTES, _PATH_BYTES = 255, 4096
"""Limits of file systems on a name and on a whole path, in bytes."""


def within(folder: Path, path: Path) -> bool:
    """Whether a path lies in a folder, links followed."""
    try:
        root, resolved = folder.resolve(), path.resolve()
        return root == resolved or root in resolved.parents
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
    """Check that everything in a folder may be read, written and removed there; `what` names it in errors ("run").

    Raises `UserError` for a link in it, however deep, that leads out of it, and for anything that is neither file
    nor folder: reading a pipe would block forever. A folder that does not exist yet is fine.
    """
    for parent, folders, files in os.walk(folder):
        for path in (Path(parent, name) for name in (*folders, *files)):
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
                held = f"{path.relative_to(folder)}, which is {kind_name(kind)}"
                raise UserError(f"{what} {folder} holds {held}: refused; remove it")
