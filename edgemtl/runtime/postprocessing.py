"""From raw tensors to what a person means: classes, metres, directions, probabilities. Numpy, outside the engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import unknown_name

__all__ = ["postprocess"]

Array = NDArray[Any]
Raw = NDArray[np.float32]


def postprocess(name: str, value: Raw) -> Array:
    """Apply the post-processing called `name` to one image's raw output (1, C, H, W) or (1, C).

    `argmax`: classes (H, W) int64, of logits (1, C): class (). `exp`: log-metres to metres (H, W). `normalize`: unit
    vectors (H, W, 3). `sigmoid`: probabilities (H, W), or (C, H, W) where C > 1. `softmax`: probabilities (C,) or (C,
    H, W). `peaks`: (C, 3), each channel's highest place x, y in pixels and its value. `none`: the output without its
    first axis. Raises `UserError` for another name.

    >>> postprocess("softmax", np.zeros((1, 2), np.float32)).tolist()
    [0.5, 0.5]
    """
    if name not in _FUNCTIONS:
        raise unknown_name("post-processing", name, _FUNCTIONS)
    return _FUNCTIONS[name](value[0])


def _single(value: Array) -> Array:
    """Without the channel axis where there is one channel only."""
    return value[0] if value.shape[0] == 1 and value.ndim > 1 else value


def _normalize(value: Raw) -> Array:
    length = np.linalg.norm(value, axis=0, keepdims=True)
    return np.ascontiguousarray((value / np.maximum(length, 1e-12)).transpose(1, 2, 0))


def _sigmoid(value: Raw) -> Array:
    # exp of a negative number only, so that nothing overflows.
    small = np.exp(-np.abs(value))
    return _single(np.where(value >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32))


def _softmax(value: Raw) -> Array:
    powers = np.exp(value - value.max(axis=0, keepdims=True))
    return np.asarray(powers / powers.sum(axis=0, keepdims=True), np.float32)


def _peaks(value: Raw) -> Array:
    flat = value.reshape(len(value), -1)
    best = flat.argmax(axis=1)
    width = value.shape[2]
    return np.stack([best % width, best // width, flat[np.arange(len(flat)), best]], axis=1).astype(np.float32)


_FUNCTIONS: dict[str, Callable[[Raw], Array]] = {
    "argmax": lambda value: value.argmax(axis=0),
    "exp": lambda value: np.exp(_single(value)),
    "none": lambda value: value.copy(),
    "normalize": _normalize,
    "peaks": _peaks,
    "sigmoid": _sigmoid,
    "softmax": _softmax,
}
