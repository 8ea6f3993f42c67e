"""Fitting efficiencies: shares of a processor's rates that explain the times of parts which were measured on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgemtl.arithmetic import Arithmetic
from edgemtl.nas.latency.parts import design_parts
from edgemtl.nas.latency.regression import kendall_tau
from edgemtl.nas.latency.roofline import Efficiencies, Roofs, Workload, estimate_ms
from edgemtl.nas.latency.table import HeldOut, MeasuredDesign

__all__ = ["fit_efficiencies", "judge_efficiencies", "measure_roofs"]

_LEAST_MS = 5e-4
"""Time of a part that its runtime fused into another: half a microsecond, so that logarithms stay finite."""
_FOLDS = 6
_PRIOR = 0.05
"""Pull of a share towards where the fit starts, in units of one part's weight: it decides where no part tells."""
_START = {"dense": 0.5, "pointwise": 0.5, "depthwise": 0.1, "products": 0.3}
_START_LAUNCH_MS = 2e-3
_INT8_RATIO: dict[Arithmetic, float] = {"avx2": 2, "avx-vnni": 4, "avx512-vnni": 4, "amx": 32, "arm": 2, "arm-dot": 4}
"""INT8 products of an instruction over FP32 ones of the same processor's widest: VNNI and SDOT make four of one."""
_BF16_RATIO: dict[Arithmetic, float] = {"amx": 16}
_SIDE, _COPY_BYTES, _TRIES = 768, 2**26, 8


def measure_roofs(arithmetic: Arithmetic) -> Roofs:
    """This machine's rates: FP32 by a product of matrices, memory by a copy, the best of some tries of each.

    INT8 and BF16 follow from FP32 by the instructions' widths: what they are wrong by is part of the shares.
    """
    a, b = np.ones((_SIDE, _SIDE), np.float32), np.ones((_SIDE, _SIDE), np.float32)
    product, source, target = np.empty_like(a), np.zeros(_COPY_BYTES, np.uint8), np.empty(_COPY_BYTES, np.uint8)
    fp32 = 2 * _SIDE**3 / _best_seconds(lambda: np.matmul(a, b, out=product))
    copied = 2 * _COPY_BYTES / _best_seconds(lambda: np.copyto(target, source))
    rates = {"fp32": fp32, "bf16": fp32 * _BF16_RATIO.get(arithmetic, 1), "int8": fp32 * _INT8_RATIO.get(arithmetic, 1)}
    return Roofs(rates, copied)


def _best_seconds(call: Callable[[], object]) -> float:
    def seconds() -> float:
        began = time.perf_counter()
        call()
        return time.perf_counter() - began

    return min(seconds() for _ in range(_TRIES))


def fit_efficiencies(measured: Sequence[MeasuredDesign], roofs: Roofs) -> Efficiencies:
    """The shares and the launch that explain times of parts best, by least squares of their logarithms; then the rest.

    A part counts by the square root of its time: large ones decide a latency, and small ones are many.
    """
    from scipy.optimize import least_squares

    parts = [part for each in measured for part in design_parts(each.design)]
    workload = Workload.of(parts, roofs)
    times = np.maximum(np.concatenate([each.parts_ms for each in measured]), _LEAST_MS)
    weights = np.sqrt(times / times.mean())
    multiplying = {key for key, part in zip(workload.compute_keys, parts, strict=True) if part.macs}
    compute, memory = sorted(multiplying), sorted({*workload.memory_keys})
    starts = [*(_START[key.split()[0]] for key in compute), *(1.0 for _ in memory), _START_LAUNCH_MS]
    start = np.log(starts)

    def efficiencies_of(logs: NDArray[np.float64]) -> Efficiencies:
        shares = [float(share) for share in np.exp(logs)]
        split = len(compute) + len(memory)
        return Efficiencies(
            dict(zip(compute, shares[: len(compute)], strict=True)),
            dict(zip(memory, shares[len(compute) : split], strict=True)),
            shares[split],
        )

    def residuals(logs: NDArray[np.float64]) -> NDArray[np.float64]:
        estimated = workload.ms(efficiencies_of(logs))
        return np.concatenate([weights * np.log(estimated / times), _PRIOR * (logs - start)])

    solved = least_squares(residuals, start, loss="soft_l1", bounds=(start - 12, start + 6))
    fitted = efficiencies_of(solved.x)
    return replace(fitted, outside=_fit_outside(measured, roofs, fitted))


def _fit_outside(measured: Sequence[MeasuredDesign], roofs: Roofs, fitted: Efficiencies) -> dict[str, float]:
    """The factors, by precision, with which sums over parts explain latencies best, by least squares of logarithms."""
    from scipy.optimize import least_squares

    workloads = [Workload.of(design_parts(each.design), roofs) for each in measured]
    precisions = sorted({precision for workload in workloads for precision in workload.precisions})
    sums = np.array(
        [
            [float(workload.busy_ms(fitted) @ (np.array(workload.precisions) == precision)) for precision in precisions]
            for workload in workloads
        ]
    )
    launches = fitted.launch_ms * np.array([len(workload.precisions) for workload in workloads])
    latencies = np.log([each.latency_ms[""] for each in measured])

    def residuals(logs: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.concatenate([np.log(sums @ np.exp(logs) + launches) - latencies, _PRIOR * logs])

    solved = least_squares(residuals, np.zeros(len(precisions)), loss="soft_l1")
    return {precision: float(factor) for precision, factor in zip(precisions, np.exp(solved.x), strict=True)}


def judge_efficiencies(measured: Sequence[MeasuredDesign], roofs: Roofs) -> HeldOut:
    """The error on designs that took no part in a fit: of every fold by a fit to the others."""
    folds, estimated = min(_FOLDS, len(measured)), np.empty(len(measured))
    for fold in range(folds):
        others = [each for number, each in enumerate(measured) if number % folds != fold]
        fitted = fit_efficiencies(others, roofs)
        for number in range(fold, len(measured), folds):
            estimated[number] = estimate_ms(design_parts(measured[number].design), roofs, fitted)
    truth = np.array([each.latency_ms[""] for each in measured])
    return HeldOut(float(np.mean(np.abs(estimated / truth - 1))), kendall_tau(estimated, truth), len(measured))
