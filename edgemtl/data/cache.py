"""A cache of rendered frames on disk: flat .npy files that many processes fill and read at the same time.

Rows are written with plain file writes (a full disk is an error, not a signal) and read through memory maps. A row
counts only when its checksum in `done.npy` fits, so half-written rows, whoever left them, are written again.
"""

from __future__ import annotations

import shutil
import tempfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.data.pictures import NPY_BROKEN
from edgemtl.errors import UserError

__all__ = ["SEGMENT", "RowCache"]

Array = NDArray[Any]
SEGMENT = 1024
"""Rows in one folder of files: data sets of different lengths share what is there."""


class RowCache:
    """Rows of several arrays under one folder; `fields` gives each array's row shape and type.

    Safe to pickle (memory maps are opened again) and to use from several processes, as long as they write the same
    bytes into the same row.
    """

    def __init__(self, folder: Path, fields: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
        self.folder = folder
        self.fields = dict(fields)
        self._maps: dict[int, dict[str, Array]] = {}
        self._checked: set[int] = set()

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "fields": self.fields, "_maps": {}, "_checked": set()}

    @property
    def row_bytes(self) -> int:
        """Bytes of one row over all fields."""
        return sum(int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in self.fields.values())

    def claimed(self, index: int) -> bool:
        """Whether the row has been written (its checksum is only verified by `read`)."""
        maps = self._open(index // SEGMENT)
        return maps is not None and bool(maps["done"][index % SEGMENT])

    def read(self, index: int) -> dict[str, Array] | None:
        """The row as views of the files, or none where it is missing or damaged."""
        maps = self._open(index // SEGMENT)
        if maps is None or not maps["done"][index % SEGMENT]:
            return None
        row = {name: maps[name][index % SEGMENT] for name in self.fields}
        if index not in self._checked:
            if _checksum(row) != maps["done"][index % SEGMENT]:
                return None
            self._checked.add(index)
        return row

    def write(self, index: int, row: Mapping[str, Array]) -> None:
        """Write one row, its checksum last; raises `UserError` where the system refuses (a full disk)."""
        segment, position = divmod(index, SEGMENT)
        folder = self.folder / f"{segment:04d}"
        exact = {name: np.ascontiguousarray(row[name], dtype=kind) for name, (_, kind) in self.fields.items()}
        try:
            if not folder.is_dir():
                self._create(folder)
            for name, values in exact.items():
                _write_row(folder / f"{name}.npy", position, values)
            _write_row(folder / "done.npy", position, np.asarray(_checksum(exact), np.uint32))
        except OSError as error:
            raise self.refused(error) from error

    def refused(self, error: OSError) -> UserError:
        """The error for a cache that cannot be written."""
        return UserError(
            f"cannot write the cache {self.folder}: {error.strerror or error}; "
            "free space there or set EDGEMTL_CACHE to another folder"
        )

    def _create(self, folder: Path) -> None:
        """Make a segment's empty files in a folder of their own, then rename it: of two makers, one wins."""
        self.folder.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=self.folder, prefix=".new-"))
        try:
            for name, (shape, kind) in {**self.fields, "done": ((), "<u4")}.items():
                with (temporary / f"{name}.npy").open("wb") as file:
                    header = {"descr": kind, "fortran_order": False, "shape": (SEGMENT, *shape)}
                    np.lib.format.write_array_header_1_0(file, header)
                    file.truncate(file.tell() + SEGMENT * int(np.prod(shape)) * np.dtype(kind).itemsize)
            try:
                temporary.rename(folder)
            except OSError:
                if not folder.is_dir():
                    raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def _open(self, segment: int) -> dict[str, Array] | None:
        if segment not in self._maps:
            folder = self.folder / f"{segment:04d}"
            if not folder.is_dir():
                return None
            try:
                maps = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in [*self.fields, "done"]}
            except NPY_BROKEN as error:
                raise UserError(
                    f"the cache {folder} is damaged ({error}): delete that folder, it will be filled again"
                ) from error
            self._maps[segment] = maps
        return self._maps[segment]


def _checksum(row: Mapping[str, Array]) -> int:
    """CRC-32 over the row's arrays in the order of their names; never 0, which stands for missing."""
    value = 0
    for name in sorted(row):
        value = zlib.crc32(np.ascontiguousarray(row[name]).data, value)
    return value or 1


def _write_row(path: Path, position: int, values: Array) -> None:
    with path.open("r+b") as file:
        np.lib.format.read_magic(file)
        np.lib.format.read_array_header_1_0(file)
        file.seek(file.tell() + position * values.nbytes)
        file.write(values.tobytes())
