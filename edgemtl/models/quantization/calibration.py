"""Ranges of a net's activations, from images that are used for nothing else."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgemtl.errors import UserError
from edgemtl.models.graph import Graph, run_graph, trace
from edgemtl.models.quantization.plan import Ranges

__all__ = ["Clipping", "RangeObserver", "calibrate"]

Clipping = Literal["minmax", "percentile", "mse"]
_SAMPLES = 1 << 15
_PERCENTILE = 99.99
"""On trained nets this lost least of the three in every target's INT8: single far values are rarely right ones."""
_EXPERT = re.compile(r"(.*\.experts\.)\d+(\.[a-z]+)(_\d+)?$")
_FRACTIONS = np.linspace(1.0, 0.5, 21)


class RangeObserver:
    """Extremes of every tensor, and an even sample of its values, over as many `batches` as will be observed."""

    def __init__(self, batches: int) -> None:
        self.limits: dict[str, tuple[float, float]] = {}
        self._samples: dict[str, list[NDArray[np.float32]]] = {}
        self._size = max(_SAMPLES // batches, 256)

    def __call__(self, name: str, value: NDArray[np.float32]) -> None:
        """Count a tensor's values in."""
        if not value.size:
            return  # an expert that no token of these images reached
        low, high = float(value.min()), float(value.max())
        before = self.limits.get(name, (low, high))
        self.limits[name] = (min(low, before[0]), max(high, before[1]))
        flat = value.reshape(-1)
        # An odd stride visits all columns, rows and channels; an even one can fall in step with the image's width.
        stride = max(flat.size // self._size, 1) | 1
        self._samples.setdefault(name, []).append(flat[::stride].copy())

    def ranges(self, clipping: Clipping = "percentile") -> dict[str, tuple[float, float]]:
        """Limits of each tensor, clipped as `calibrate` says; `UserError` where a value was not finite."""
        for name, limits in self.limits.items():
            if not all(np.isfinite(limits)):
                raise UserError(
                    f"calibration met values that are not finite in {name}: the net or its images are damaged"
                )
        return {name: _clipped(limits, self._samples[name], clipping) for name, limits in self.limits.items()}


def calibrate(net: nn.Module, images: Tensor | Iterable[Tensor], clipping: Clipping = "percentile") -> Ranges:
    """Ranges of every tensor of a static net over normalised images (N, 3, H, W), or batches of such.

    `minmax` keeps the extremes, `percentile` the middle 99.98 %, `mse` shrinks the extremes together to where eight-bit
    rounding has the least mean squared error. Raises `UserError` where there is no image or a value is not finite.
    """
    batches = list(torch.split(images, 16)) if isinstance(images, Tensor) else list(images)
    if not batches or not sum(len(batch) for batch in batches):
        raise UserError("no calibration image was given: INT8 needs at least one, a hundred are better")
    graph, observer = trace(net), RangeObserver(len(batches))
    for batch in batches:
        run_graph(graph, batch, lambda name, value: observer(name, value.numpy()))
    ranges = observer.ranges(clipping)
    return Ranges(ranges | _of_siblings(graph, ranges))


def _of_siblings(graph: Graph, ranges: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """Ranges of experts that no calibration image reached: all that their tensor is in the layer's other experts."""
    siblings: dict[str, list[tuple[float, float]]] = defaultdict(list)
    unseen: dict[str, str] = {}
    for node in graph.nodes:
        kind = _EXPERT.sub(r"\1\2", node.name) if _EXPERT.search(node.name) else f"{node.op} {node.inputs}"
        if node.output in ranges:
            siblings[kind].append(ranges[node.output])
        else:
            unseen[node.output] = kind
    return {
        name: (min(low for low, _ in siblings[kind]), max(high for _, high in siblings[kind]))
        for name, kind in unseen.items()
        if siblings[kind]
    }


def _clipped(
    limits: tuple[float, float], samples: list[NDArray[np.float32]], clipping: Clipping
) -> tuple[float, float]:
    if clipping == "minmax":
        return limits
    values = np.concatenate(samples)
    if clipping == "percentile":
        low, high = np.percentile(values, (100 - _PERCENTILE, _PERCENTILE))
        return float(low), float(high)
    return _least_error(limits, values)


def _least_error(limits: tuple[float, float], values: NDArray[np.float32]) -> tuple[float, float]:
    """The fraction of the extremes at which rounding to 256 levels loses least."""
    low, high = min(limits[0], 0.0), max(limits[1], 0.0)
    if high - low <= 0:
        return limits
    errors = []
    for fraction in _FRACTIONS:
        scale = np.float32((high - low) * fraction / 255)
        zero = np.float32(np.rint(-low * fraction / scale))
        rounded = (np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale
        errors.append(float(np.square(values - rounded, dtype=np.float64).mean()))
    best = float(_FRACTIONS[int(np.argmin(errors))])
    return low * best, high * best
