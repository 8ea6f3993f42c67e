"""Untrusted safetensors files: regular ones, whose header is read like any JSON before the library reads the rest."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from edgemtl.errors import UserError, reason_of
from edgemtl.files.disk import open_regular, reading
from edgemtl.files.json import parse_json

__all__ = ["TensorFile", "open_tensors"]

HEADER_LIMIT_BYTES = 16 * 2**20
_PICKLES = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05", b"PK")


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
    metadata = _metadata(path, what)
    try:
        with safe_open(path, framework=framework) as handle:
            yield TensorFile(tuple(handle.keys()), metadata, handle)
    except (SafetensorError, OSError) as error:
        reason = reason_of(error)
        raise UserError(
            f"{what} {path} cannot be read ({reason}): it was truncated or damaged, or is no safetensors file"
        ) from error


def _metadata(path: Path, what: str) -> dict[str, str]:
    """The file's metadata; a file whose length does not match its header is refused before it is mapped."""
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
    return texts
