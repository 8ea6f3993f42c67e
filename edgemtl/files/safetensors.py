"""Untrusted safetensors files: regular ones, whose header is read like any JSON before anything reads the rest.

For torch the library reads the rest. NumPy's arrays are read here, since a board has NumPy and not the library.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Dict, Literal

import numpy as np

from edgemtl.errors import UserError, reason_of
from edgemtl.files.disk import open_regular, reading
from edgemtl.files.json import parse_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TensorFile", "open_tensors"]

HEADER_LIMIT_BYTES = 16 * 2**20
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")
_TYPES = {
    "BOOL": "?", "I8": "<i1", "U8": "<u1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8",
    "U64": "<u8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip
"""The types that NumPy has, by their names in a header."""
_Header = Dict[str, Any]


@dataclass(frozen=True)
class TensorFile:
    """An open file: the names of its tensors, and its metadata."""

    names: tuple[str, ...]
    metadata: Mapping[str, str]
    handle: Any

    def __getitem__(self, name: str) -> Any:
        """A tensor, read now; raises `KeyError` where there is none of that name."""
        if name not in self.names:
            raise KeyError(name)
        return self.handle.get_tensor(name)


@contextmanager
def open_tensors(path: Path, what: str, framework: Literal["pt", "numpy"]) -> Iterator[TensorFile]:
    """Open a safetensors file, whose tensors are then read one by one as torch's ("pt") or NumPy's.

    `what` names the file in errors ("supernet", "weights"). Raises `UserError`, one line, for a file that is missing,
    no regular one, a pickle, cut off or damaged.
    """
    header, metadata, start = _read_header(path, what)
    with _opened_for_torch(path, what) if framework == "pt" else _opened(path, what, header, start) as handle:
        yield TensorFile(tuple(header), metadata, handle)


@contextmanager
def _opened_for_torch(path: Path, what: str) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as handle:
            yield handle
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, what, reason_of(error)) from error


@contextmanager
def _opened(path: Path, what: str, header: _Header, start: int) -> Iterator[_Arrays]:
    """The arrays of a file, once the entries of its header fit its bytes one after another."""
    try:
        extents = {name: _Extent.of(entry) for name, entry in header.items()}
    except (KeyError, TypeError, ValueError) as error:
        raise _unreadable(path, what, f"its header: {error}") from error
    end = 0
    for name, extent in sorted(extents.items(), key=lambda item: (item[1].first, item[1].size_bytes)):
        if extent.first != end:
            raise _unreadable(path, what, f"its header: the bytes of {name!r} do not follow those before them")
        end += extent.size_bytes
    with open_regular(path, what) as file:
        yield _Arrays(file, extents, start)


@dataclass(frozen=True)
class _Extent:
    """Type and shape of a tensor, and where among the data its bytes begin."""

    first: int
    shape: tuple[int, ...]
    kind: np.dtype[Any]

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> _Extent:
        """The extent that an entry of a header names; raises `ValueError` where it contradicts itself."""
        name, shape, (first, last) = str(entry["dtype"]), entry["shape"], entry["data_offsets"]
        if name not in _TYPES:
            raise ValueError(f"NumPy has no type {name[:20]!r}")
        if not all(type(number) is int and number >= 0 for number in (*shape, first, last)):
            raise ValueError("a shape or an offset is no whole number of 0 or more")
        extent = cls(first, tuple(shape), np.dtype(_TYPES[name]))
        if last - first != extent.size_bytes:
            raise ValueError(f"a shape of {extent.size_bytes} bytes stands for {last - first}")
        return extent

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.kind.itemsize


@dataclass(frozen=True)
class _Arrays:
    """Arrays of an open file, whose data begin at the byte `start`."""

    file: BinaryIO
    extents: Mapping[str, _Extent]
    start: int

    def get_tensor(self, name: str) -> NDArray[Any]:
        extent = self.extents[name]
        self.file.seek(self.start + extent.first)
        return np.frombuffer(self.file.read(extent.size_bytes), extent.kind).reshape(extent.shape)


def _unreadable(path: Path, what: str, reason: str) -> UserError:
    return UserError(f"{what} {path} cannot be read ({reason}): it was truncated or damaged, or is no safetensors file")


def _read_header(path: Path, what: str) -> tuple[_Header, dict[str, str], int]:
    """The entry of each tensor, the metadata, and where data begin.

    A file whose length does not match its header is refused before it is mapped.
    """
    with open_regular(path, what) as file, reading(f"{what} {path}"):
        start, size_bytes = file.read(8), os.fstat(file.fileno()).st_size
        header_bytes = struct.unpack("<Q", start)[0] if len(start) == 8 else HEADER_LIMIT_BYTES + 1
        header = file.read(header_bytes) if header_bytes <= HEADER_LIMIT_BYTES else b""
    if start[:2] in _PICKLES and not header.startswith(b"{"):  # the length of a header may begin with these bytes too
        raise UserError(
            f"{what} {path} cannot be read: it is a pickle, which could run code: a safetensors file is wanted"
        )
    if len(header) < header_bytes:
        raise UserError(f"{what} {path} cannot be read: it was truncated or damaged, or is no safetensors file")
    try:
        content = parse_json(header)
        metadata = content.pop("__metadata__", {})
        end = max((int(tensor["data_offsets"][1]) for tensor in content.values()), default=0)
        texts = {str(key): str(value) for key, value in metadata.items()}
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise UserError(f"{what} {path} cannot be read (its header: {error}): it was truncated or damaged") from error
    if 8 + header_bytes + end != size_bytes:
        raise UserError(
            f"{what} {path} cannot be read: it has {size_bytes} bytes where its header says {8 + header_bytes + end}: "
            "it was truncated or damaged"
        )
    return content, texts, 8 + header_bytes
