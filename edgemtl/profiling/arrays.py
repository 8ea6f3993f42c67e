"""Arrays in frames: their bytes one after another, and a table of names, types and shapes. Never pickled."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from edgemtl.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["join_arrays", "split_arrays"]

TYPES = ("float32",)
MOST_DIMENSIONS = 8


def join_arrays(arrays: Mapping[str, NDArray[np.float32]]) -> tuple[list[list[Any]], bytes]:
    """The table of arrays, and their bytes in its order."""
    table = [[name, str(array.dtype), list(array.shape)] for name, array in arrays.items()]
    return table, b"".join(np.ascontiguousarray(array).tobytes() for array in arrays.values())


def split_arrays(table: Any, payload: bytes) -> dict[str, NDArray[np.float32]]:
    """The arrays by name, writable; raises `UserError` where the table is none or does not fit the bytes."""
    arrays: dict[str, Any] = {}
    end = 0
    try:
        for name, dtype, shape in table:
            sizes: list[int] = [int(size) for size in shape]
            if dtype not in TYPES or len(sizes) > MOST_DIMENSIONS or min(sizes, default=1) < 0:
                raise ValueError(f"type {dtype!r:.40}, {len(sizes)} dimensions")
            count = math.prod(sizes)
            arrays[str(name)] = np.frombuffer(payload, dtype, count, end).reshape(sizes).copy()
            end += count * np.dtype(dtype).itemsize
    except (TypeError, ValueError) as error:
        raise UserError(f"arrays came damaged ({error}): measure again") from error
    if end != len(payload):
        raise UserError(f"arrays came damaged ({len(payload)} bytes for {end}): measure again")
    return arrays
