"""A level's model, put together from what all levels share: parts of the supernet's weights, times its own factors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import UserError

__all__ = ["SharedPart", "assemble", "factor_name"]


@dataclass(frozen=True)
class SharedPart:
    """The weight `name` of this shape, whose bytes belong at a `place` of the model that was stored without them."""

    place: int
    name: str
    shape: tuple[int, ...]

    def as_json(self) -> list[Any]:
        """As `engine.json` keeps it."""
        place, name, shape = astuple(self)
        return [place, name, list(shape)]


def factor_name(level: int, name: str) -> str:
    """What the factors of a level's weight are called in the file of weights."""
    return f"level-{level}/{name}"


def assemble(model: Path, weights: Path, level: int, parts: Sequence[Sequence[Any]]) -> bytes:
    """The serialized model of a level: `parts` of the safetensors file `weights`, scaled, put into `model`.

    Raises `UserError` where the parts do not fit the files.
    """
    from safetensors import SafetensorError, safe_open

    stored, pieces, end = model.read_bytes(), list[bytes](), 0
    try:
        with safe_open(weights, framework="numpy") as file:
            for place, name, shape in parts:
                if not end <= place <= len(stored):
                    raise ValueError(f"{name} belongs at byte {place}")
                value = _part(file.get_tensor(name), tuple(shape)) * _column(
                    file.get_tensor(factor_name(level, name)), len(shape)
                )
                if value.shape != tuple(shape):
                    raise ValueError(f"{name} has the shape {value.shape}")
                pieces += [stored[end:place], value.tobytes()]
                end = place
    except (SafetensorError, OSError, TypeError, ValueError) as error:
        raise UserError(f"{weights} and level {level} do not fit ({error}): export the bundle again") from error
    return b"".join([*pieces, stored[end:]])


def _part(whole: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """A prefix in the first two dimensions, the centre of a kernel in the others."""
    first = [
        (size - own) // 2 if axis > 1 else 0 for axis, (size, own) in enumerate(zip(whole.shape, shape, strict=True))
    ]
    return whole[tuple(slice(start, start + own) for start, own in zip(first, shape, strict=True))]


def _column(factor: NDArray[np.float32], dimensions: int) -> NDArray[np.float32]:
    return factor.reshape(-1, *[1] * (dimensions - 1))
