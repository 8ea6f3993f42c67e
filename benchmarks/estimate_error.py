"""Estimated latencies against measured ones, of 30 designs that took part in no fit, on this host and both runtimes.

Efficiencies are fitted to well spread designs of the space `cnn`, timed and profiled in the same passes as the unseen
ones: every pass goes through all of them, every other one backwards, and the least median of twelve engines is the
latency of either side: with three of each, two runs on a virtual machine ordered the very same designs at a tau of 0.72
between them. How well the latencies repeat, odd passes against even ones, is a row. An estimate follows from the parts
of a design, the machine's rates and these shares alone. Kendall's tau of FLOPs, and of rates that are taken as reached
in full, stand beside it.

About nine minutes a runtime on two cores that do nothing else. --quick takes fewer designs and engines, on ONNX
Runtime alone.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import numpy as np
from _common import Outcome, Row, main, say
from _runs import scenes_evaluator
from fit_estimates import TARGETS, measured_designs
from latency_predictor import unseen_designs

from edgemtl.arithmetic import own_arithmetic
from edgemtl.nas.latency import (
    UNFITTED,
    Efficiencies,
    MeasuredDesign,
    Roofs,
    design_parts,
    estimate_ms,
    fit_efficiencies,
    kendall_tau,
    measure_roofs,
    spread_designs,
)

SPACE, KNOWN, UNSEEN, PASSES = "cnn", 30, 30, 12
QUICK_KNOWN, QUICK_UNSEEN, QUICK_PASSES = 14, 10, 2


def run(options: argparse.Namespace) -> Outcome:
    """Both runtimes; with `quick` ONNX Runtime alone."""
    rows, raw = [], {}
    known, unseen, passes = (QUICK_KNOWN, QUICK_UNSEEN, QUICK_PASSES) if options.quick else (KNOWN, UNSEEN, PASSES)
    for target in TARGETS[: 1 if options.quick else None]:
        space, _ = scenes_evaluator(target, SPACE)
        fitted = {design.key for design in spread_designs(space, known)}
        roofs = measure_roofs(own_arithmetic())
        measured = measured_designs(target, SPACE, known, passes, unseen_designs(space, unseen, fitted))
        own_rows, raw[target] = judge(target, measured[: len(fitted)], measured[len(fitted) :], roofs)
        rows += own_rows
    return Outcome(rows, raw)


def judge(
    target: str, known: Sequence[MeasuredDesign], unseen: Sequence[MeasuredDesign], roofs: Roofs
) -> tuple[list[Row], dict[str, Any]]:
    """The rows of one runtime and all raw figures."""
    fitted = fit_efficiencies(known, roofs)
    truth = np.array([each.latency_ms[""] for each in unseen])
    estimated = estimates(unseen, roofs, fitted)
    mape, tau = float(np.mean(np.abs(estimated / truth - 1))), kendall_tau(estimated, truth)
    say(f"{target}: error {100 * mape:.1f} %, tau {tau:.3f} on {len(unseen)} designs")
    plain = estimates(unseen, roofs, UNFITTED)
    flops = [each.design.cost().flops for each in unseen]
    rows = [
        Row(f"{target}_kendall_tau", tau, "", 0.8, lower_is_better=False),
        Row(f"{target}_mape", 100 * mape, "%", aim=15),
        Row(f"{target}_kendall_tau_of_measuring_again", measured_again(unseen), "", lower_is_better=False),
        Row(f"{target}_kendall_tau_of_flops", kendall_tau(flops, truth), "", lower_is_better=False),
        Row(f"{target}_kendall_tau_of_rates", kendall_tau(plain, truth), "", lower_is_better=False),
    ]
    raw = {
        "roofs": {"ops_per_s": dict(roofs.ops_per_s), "bytes_per_s": roofs.bytes_per_s},
        "efficiencies": {
            "compute": dict(fitted.compute),
            "memory": dict(fitted.memory),
            "launch_ms": fitted.launch_ms,
            "outside": dict(fitted.outside),
        },
        "known": [{"design": dict(each.design), "medians_ms": list(each.medians_ms[""])} for each in known],
        "unseen": [
            {"design": dict(each.design), "medians_ms": list(each.medians_ms[""]), "estimated_ms": float(ms)}
            for each, ms in zip(unseen, estimated, strict=True)
        ],
        "error_quantiles": [float(q) for q in np.quantile(np.abs(estimated / truth - 1), (0.5, 0.9, 1.0))],
    }
    return rows, raw


def measured_again(designs: Sequence[MeasuredDesign]) -> float:
    """Kendall's tau of the latencies of odd passes and of even ones, half of the engines each."""
    passes = [each.medians_ms[""] for each in designs]
    return kendall_tau(*(np.array([min(medians[first::2]) for medians in passes]) for first in (0, 1)))


def estimates(designs: Sequence[MeasuredDesign], roofs: Roofs, efficiencies: Efficiencies) -> np.ndarray[Any, Any]:
    """Estimated latencies in ms."""
    return np.array([estimate_ms(design_parts(each.design), roofs, efficiencies) for each in designs])


if __name__ == "__main__":
    main(run, __doc__)
