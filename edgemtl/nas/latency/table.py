"""A latency table: times of a space's parts from profiles of whole engines, and what their sum leaves over.

A part that was timed has the median of its times, drawn a little to what its like lead to expect; one that was not has
that expectation, a regression on counted work for each kind. A design's latency is the sum of its parts times a learnt
residual (ridge), as in ProxylessNAS and nn-Meter; the figure that stands beside every prediction is the error on
designs that took part in none of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from edgemtl.nas.latency.parts import Part, conversions, design_parts
from edgemtl.nas.latency.regression import Ridge, fit_ridge, kendall_tau
from edgemtl.spaces import Design

__all__ = ["HeldOut", "LatencyTable", "MeasuredDesign", "fit_table"]

Array = NDArray[np.float64]
_LEAST_MS = 5e-4
"""Time of a part that its runtime fused into another: half a microsecond, so that logarithms stay finite."""
_TRUST = 1.0
"""How many times of its own the expectation of a part weighs as much as."""
_FOLDS = 8


@dataclass(frozen=True)
class MeasuredDesign:
    """A design whose engines were timed, and one of them profiled.

    `medians_ms` has the median of every engine for each scope: all tasks under "", and single tasks. `profiled_ms` are
    the profile's times of `design_parts`, in their order, and `unnamed_ms` that of operators that belong to no block.
    """

    design: Design
    medians_ms: Mapping[str, tuple[float, ...]]
    profiled_ms: tuple[float, ...]
    unnamed_ms: float

    @cached_property
    def latency_ms(self) -> dict[str, float]:
        """The latency of each scope, that of the fastest engine: whatever else runs makes one slower, never faster."""
        return {scope: min(medians) for scope, medians in self.medians_ms.items()}

    @property
    def parts_ms(self) -> Array:
        """Times of the parts, on the scale on which they and `moving_ms` are the latency of all tasks.

        Profiling costs time itself: the profile tells shares.
        """
        return np.array(self.profiled_ms) * self._scale

    @property
    def moving_ms(self) -> float:
        """The time of what belongs to no block, on the same scale."""
        return self.unnamed_ms * self._scale

    @cached_property
    def _scale(self) -> float:
        return self.latency_ms[""] / (sum(self.profiled_ms) + self.unnamed_ms)


@dataclass(frozen=True)
class HeldOut:
    """Error on designs that were held out: mean absolute error as a fraction, Kendall's tau, and how many designs."""

    error: float
    tau: float
    designs: int


@dataclass(frozen=True)
class LatencyTable:
    """Predicts latencies of a space's designs from those that were `measured`; `held_out` is its error by scope."""

    measured: tuple[MeasuredDesign, ...]
    held_out: Mapping[str, HeldOut]

    @property
    def scopes(self) -> tuple[str, ...]:
        """The sets of tasks that are predicted: all under "", and single ones."""
        return tuple(self.held_out)

    def predict(self, designs: Sequence[Design], scope: str = "") -> Array:
        """Latencies in ms."""
        return self._models[scope].predict(designs)

    @property
    def errors(self) -> dict[str, float]:
        """The mean absolute error of every scope on designs held out, as a fraction."""
        return {scope: each.error for scope, each in self.held_out.items()}

    @cached_property
    def times_ms(self) -> dict[str, float]:
        """The table itself: the median time in ms of every part that was timed, by its key."""
        times: dict[str, list[float]] = defaultdict(list)
        for each in self.measured:
            for part, ms in zip(design_parts(each.design), each.parts_ms, strict=True):
                times[part.key].append(ms)
        return {key: float(np.median(values)) for key, values in sorted(times.items())}

    @cached_property
    def _models(self) -> dict[str, _Model]:
        parts = _Parts(self.measured)
        return {scope: _Model(parts, self.measured, scope) for scope in self.scopes}


def fit_table(measured: Sequence[MeasuredDesign]) -> LatencyTable:
    """The table of what was measured, its error by cross-validation.

    Parts and residual are fitted without the designs that they are judged on.
    """
    return LatencyTable(tuple(measured), {scope: _judged(measured, scope) for scope in measured[0].medians_ms})


def _judged(measured: Sequence[MeasuredDesign], scope: str) -> HeldOut:
    folds = min(_FOLDS, len(measured))
    predicted = np.empty(len(measured))
    for fold in range(folds):
        own = range(fold, len(measured), folds)
        others = [each for number, each in enumerate(measured) if number % folds != fold]
        model = _Model(_Parts(others), others, scope)
        predicted[list(own)] = model.predict([measured[number].design for number in own])
    truth = np.array([each.latency_ms[scope] for each in measured])
    return HeldOut(float(np.mean(np.abs(predicted / truth - 1))), kendall_tau(predicted, truth), len(measured))


class _Parts:
    """Times of parts: those that were measured, and what to expect of others."""

    def __init__(self, measured: Sequence[MeasuredDesign]) -> None:
        parts = [part for each in measured for part in design_parts(each.design)]
        times = np.maximum([ms for each in measured for ms in each.parts_ms], _LEAST_MS)
        self._kinds = sorted({part.kind for part in parts})
        self._expected = fit_ridge(self._rows(parts), np.log(times), np.sqrt(times))
        logs: dict[str, list[float]] = defaultdict(list)
        for part, ms in zip(parts, times, strict=True):
            logs[part.key].append(float(np.log(ms)))
        self._logs = {key: (float(np.median(values)), len(values)) for key, values in logs.items()}
        self._ms: dict[str, float] = {}

    def seen(self, part: Part) -> bool:
        """Whether this part itself was timed."""
        return part.key in self._logs

    def ms(self, parts: Sequence[Part]) -> Array:
        """Times of parts in ms."""
        fresh = list({part.key: part for part in parts if part.key not in self._ms}.values())
        if fresh:
            for part, expected in zip(fresh, self._expected(self._rows(fresh)), strict=True):
                log, count = self._logs.get(part.key, (0.0, 0))
                self._ms[part.key] = float(np.exp((count * log + _TRUST * expected) / (count + _TRUST)))
        return np.array([self._ms[part.key] for part in parts])

    def _rows(self, parts: Sequence[Part]) -> Array:
        """Logarithms of counted work, for all kinds together and for each kind alone."""
        work = np.log1p([[part.macs, part.reads, part.writes, part.weights] for part in parts]) / 10
        number = {kind: index for index, kind in enumerate(self._kinds)}
        own = np.zeros((len(parts), len(self._kinds), 3))
        for row, part in enumerate(parts):
            if part.kind in number:
                own[row, number[part.kind]] = 1.0, work[row, 0], work[row, 2]
        return np.hstack([work, own.reshape(len(parts), -1)])


class _Model:
    """The sum of a design's parts, what its conversions add, and the residual, in one scope."""

    def __init__(self, parts: _Parts, measured: Sequence[MeasuredDesign], scope: str) -> None:
        from scipy.optimize import nnls

        self._parts, self._scope = parts, scope
        designs, truth = [each.design for each in measured], np.array([each.latency_ms[scope] for each in measured])
        moved = np.array([_moving(each.design) for each in measured])
        self._most = np.maximum(moved.max(axis=0), 1.0)
        self._rates, _ = nnls(moved / self._most, np.array([each.moving_ms for each in measured]))
        summed, rows = self._summed(designs)
        self._residual: Ridge = fit_ridge(rows, np.log(truth / summed))

    def predict(self, designs: Sequence[Design]) -> Array:
        """Latencies in ms."""
        summed, rows = self._summed(designs)
        return np.asarray(summed * np.exp(self._residual(rows)))

    def _summed(self, designs: Sequence[Design]) -> tuple[Array, Array]:
        """The table's sum for each design, and the features of what that leaves over."""
        sums, rows = [], []
        for design in designs:
            parts = design_parts(design, self._scope)
            times = self._parts.ms(parts)
            moving = _moving(design, self._scope)
            sums.append(max(float(times.sum() + moving / self._most @ self._rates), _LEAST_MS))
            rows.append(_features(design, self._scope, parts, times, self._parts, sums[-1], moving))
        return np.array(sums), np.array(rows)


def _moving(design: Design, task: str = "") -> Array:
    """Counts that moving and converting tensors between blocks follows: elements each way, outputs, blocks, and 1."""
    blocks = design.plan.path([task]) if task else design.plan.blocks
    outputs = sum(c.outputs * c.height * c.width for block in blocks if block.output for c in block.convs[-1:])
    eight_bit = sum(design.precision[block.parameters] == "int8" for block in blocks)
    return np.array([*conversions(design, task), outputs, eight_bit, len(blocks) - eight_bit, 1.0])


def _features(
    design: Design, task: str, parts: Sequence[Part], times: Array, table: _Parts, total: float, moving: Array
) -> list[float]:
    """Cheap facts of a design that its residual may follow."""
    whole = float(times.sum())
    shares = [
        float(times[[word in part.kind for part in parts]].sum()) / whole for word in ("depthwise", "int8 from", "bf16")
    ]
    unseen = float(times[[not table.seen(part) for part in parts]].sum()) / whole
    cost = design.cost(task or None)
    sizes = [np.log(total), np.log(cost.flops), np.log(cost.weight_bytes), np.log(len(parts))]
    return [*map(float, sizes), *shares, unseen, float(moving[:2].sum() / sum(part.writes for part in parts))]
