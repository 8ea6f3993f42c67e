"""Names of files and labels that were written on another system: the same letters, other bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from edgemtl.errors import UserError, brief
from edgemtl.files.names import nfc
from edgemtl.files.paths import FILE_NAME_BYTES, fits

__all__ = ["Names"]


class Names:
    """Finds files whose names are written in another Unicode form; a folder is listed once, and only where it must."""

    def __init__(self) -> None:
        self._listed: dict[Path, dict[str, str]] = {}

    def find(self, root: Path, inside: str) -> Path:
        """The path below `root` as the system has it; where nothing fits, the path as it is given.

        Raises `UserError` for one that is longer than file systems take.
        """
        if not fits(inside):
            raise UserError(
                f"the file name {brief(inside)} is too long: at most {FILE_NAME_BYTES} bytes are allowed, "
                "choose shorter names of images or in `files`"
            )
        path = root / inside
        if inside.isascii() or path.exists():
            return path
        path = root
        for part in PurePosixPath(inside).parts:
            path = path / (part if (path / part).exists() else self._list(path).get(nfc(part), part))
        return path

    def _list(self, folder: Path) -> Mapping[str, str]:
        if folder not in self._listed:
            there = folder.iterdir() if folder.is_dir() else ()
            self._listed[folder] = {nfc(path.name): path.name for path in there}
        return self._listed[folder]
