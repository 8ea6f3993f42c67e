"""A folder of photos without labels: those that train and calibrate, those that decide, those that are reported on."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from edgemtl.data import source_names
from edgemtl.errors import UserError
from edgemtl.files.images import ENDINGS

__all__ = ["MOST_EACH", "Photos", "is_data_set", "read_photos"]

_FEWEST = 6
MOST_EACH = 128


@dataclass(frozen=True)
class Photos:
    """Files of a folder: a third trains and calibrates, another decides, and the last is scored on."""

    training: tuple[Path, ...]
    calibration: tuple[Path, ...]
    validation: tuple[Path, ...]
    test: tuple[Path, ...]

    @property
    def fingerprint(self) -> str:
        """A hash of names and sizes."""
        names = [f"{path.name} {path.stat().st_size}" for path in (*self.calibration, *self.validation, *self.test)]
        return hashlib.sha256("\n".join(names).encode()).hexdigest()


def is_data_set(data: Path) -> bool:
    """Whether this names a data set as training takes it, and no folder of photos."""
    if data.is_dir():
        return any(data.glob("*.y*ml"))
    return data.suffix in (".yaml", ".yml") or str(data) in source_names()


def read_photos(folder: Path) -> Photos:
    """The pictures that lie in a folder, in an order that follows from their names alone.

    At most 128 are in each part but `training`, which has all of the first third.

    Raises `UserError` where it is no folder, or holds fewer than six.
    """
    if not folder.is_dir():
        raise UserError(
            f"--data {folder} is no folder: give one of photos like those that the net will see, or a data set"
        )
    files = [path for path in folder.iterdir() if path.suffix.lower() in ENDINGS and path.is_file()]
    if len(files) < _FEWEST:
        raise UserError(
            f"--data {folder} holds {len(files)} pictures ({', '.join(ENDINGS)}): give {_FEWEST} or more, a hundred "
            "are better: a third calibrates, a third decides, a third is reported on"
        )
    files.sort(key=lambda path: (hashlib.sha256(path.name.encode()).digest(), path.name))
    parts = [tuple(files[first::3][:MOST_EACH]) for first in range(3)]
    return Photos(tuple(files[::3]), *parts)
