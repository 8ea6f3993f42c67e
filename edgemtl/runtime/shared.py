"""A level's weights, put together from what all levels share: parts of the whole net's, times its own factors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgemtl.errors import UserError
from edgemtl.files.safetensors import open_tensors
from edgemtl.runtime.session import EngineSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SharedPart", "assemble", "factor_name"]

_KINDS = ("float32", "float16")


@dataclass(frozen=True)
class SharedPart:
    """The weight `name` of this shape, whose bytes belong at `position` of the file that was stored without them.

    Its values are FP32, or FP16 where `kind` is "float16". It is the first part of what is stored, in every axis; or
    along each axis the positions in the tensor of weights that `picks` names, all of them where that is None.
    """

    position: int
    name: str
    shape: tuple[int, ...]
    kind: str = "float32"
    picks: tuple[str | None, ...] = ()

    def as_json(self) -> list[Any]:
        """The entry in `engine.json`."""
        picks = [list(self.picks)] if self.picks else []
        return [self.position, self.name, list(self.shape), self.kind, *picks]


def factor_name(level: int, name: str) -> str:
    """Name of the factors of a level's weight in the file of weights."""
    return f"level-{level}/{name}"


def assemble(folder: Path, spec: EngineSpec, key: str) -> Iterator[memoryview]:
    """The content of a level's file `key` with its parts of the shared weights, scaled, put in: piece after piece.

    A piece holds until the next one is asked for: they share a buffer, since memory that was never touched costs more
    than the arithmetic. Raises `UserError` where the parts do not fit the files.
    """
    weights, level = spec.file(folder, "shared"), spec.level
    stored, end, scaled = memoryview(spec.file(folder, key).read_bytes()), 0, np.empty(0, np.float32)
    try:
        with open_tensors(weights, "weights", "numpy") as file:
            for position, name, shape, kind, *picks in spec.options["shared"][key]:
                if not end <= position <= len(stored):
                    raise ValueError(f"{name} belongs at byte {position}")
                if kind not in _KINDS:
                    raise ValueError(f"{name} is {kind}")
                chosen = [pick and file[pick] for pick in picks[0]] if picks else None
                whole, factor = file[name], file[factor_name(level, name)]
                part = _part(whole, tuple(shape)) if chosen is None else _picked(whole, chosen)
                if part.shape != tuple(shape):
                    raise ValueError(f"{name} has the shape {part.shape}")
                if part.size > scaled.size:
                    scaled = np.empty(part.size, np.float32)
                flat = part.reshape(len(part), -1)  # NumPy is slow where it multiplies along the short rows of a kernel
                value = np.multiply(flat, factor[:, None], out=scaled[: part.size].reshape(flat.shape))
                yield stored[end:position]
                yield memoryview(value if kind == "float32" else value.astype(np.float16))
                end = position
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{weights} and level {level} do not fit ({error}): export the bundle again") from error
    yield stored[end:]


def _part(whole: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A prefix in every dimension, of a convolution the centre of the kernel."""
    if whole.ndim != len(shape):
        raise ValueError(f"a weight of {whole.ndim} dimensions is wanted in {len(shape)}")
    first = [
        (size - own) // 2 if whole.ndim == 4 and axis > 1 else 0
        for axis, (size, own) in enumerate(zip(whole.shape, shape))
    ]
    return whole[tuple(slice(start, start + own) for start, own in zip(first, shape))]


def _picked(whole: NDArray[np.float32], chosen: Sequence[NDArray[np.int32] | None]) -> NDArray[np.float32]:
    """The positions `chosen` along each axis; all of an axis where that is None."""
    for axis, positions in enumerate(chosen):
        whole = whole if positions is None else whole.take(positions, axis)
    return whole
