"""Latencies that a table predicts against measured ones, of 50 designs that it has never seen, on both runtimes.

The designs of the table and the unseen ones are timed in the same passes: each is built once, every pass goes through
all of them, every other one backwards, in an engine of its own, and the least median of three engines is the latency of
either side. The table is then fitted to its own designs alone, as a search makes it, and predicts the others. What the
table says of itself, by cross-validation, and Kendall's tau of FLOPs alone stand beside it.

About four minutes for ONNX Runtime and eight for OpenVINO on two cores with AVX-512 that do nothing else. --quick takes
fewer designs and engines, on ONNX Runtime alone.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _common import Outcome, Row, main, say
from _runs import scenes_evaluator

from edgemtl.nas.latency import (
    DESIGNS,
    PASSES,
    LatencyTable,
    MeasuredDesign,
    fit_table,
    kendall_tau,
    key_of,
    measure_designs,
    spread_designs,
)
from edgemtl.progress import Progress
from edgemtl.spaces import Design, Space

TARGETS = ("onnxruntime", "openvino")
UNSEEN = 50
QUICK_DESIGNS, QUICK_UNSEEN, QUICK_PASSES = 20, 12, 2
SEED = 2026
SAY_EVERY = 20


def run(options: argparse.Namespace) -> Outcome:
    """Both runtimes; with `quick` ONNX Runtime alone."""
    rows, raw = [], {}
    for target in TARGETS[: 1 if options.quick else None]:
        own_rows, raw[target] = one_target(target, options.quick)
        rows += own_rows
    return Outcome(rows, raw)


def one_target(target: str, quick: bool) -> tuple[list[Row], dict[str, Any]]:
    """A table and unseen designs of one runtime, measured together."""
    space, evaluator = scenes_evaluator(target)
    known = spread_designs(space, QUICK_DESIGNS if quick else DESIGNS)
    unseen = unseen_designs(space, QUICK_UNSEEN if quick else UNSEEN, {design.key for design in known})
    key = key_of(space, evaluator.target, evaluator.measurer.kind, evaluator.threads)
    passes = QUICK_PASSES if quick else PASSES
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "measured.json"
        measured, seconds = measure_designs([*known, *unseen], path, key, evaluator, passes, _say_progress)
    table = fit_table(measured[: len(known)])
    return judge(target, table, measured[len(known) :], seconds)


def unseen_designs(space: Space, count: int, known: set[str]) -> list[Design]:
    """Random designs, block by block in some precision or in one alone, as searches propose them; none is `known`."""
    rng, drawn = random.Random(SEED), dict[str, Design]()
    while len(drawn) < count:
        design = space.random(rng)
        design = rng.choice([design, *space.uniform(design)])
        if design.key not in known:
            drawn[design.key] = design
    return list(drawn.values())


def judge(
    target: str, table: LatencyTable, unseen: list[MeasuredDesign], seconds: float
) -> tuple[list[Row], dict[str, Any]]:
    """The rows of one runtime and all raw figures."""
    designs = [each.design for each in unseen]
    truth, predicted = np.array([each.latency_ms[""] for each in unseen]), table.predict(designs)
    error = float(np.mean(np.abs(predicted / truth - 1)))
    tau, flops_tau = kendall_tau(predicted, truth), kendall_tau([d.cost().flops for d in designs], truth)
    held_out = table.held_out[""]
    say(f"{target}: error {100 * error:.2f} %, tau {tau:.3f}; by cross-validation {100 * held_out.error:.2f} %")
    rows = [
        Row(f"{target}_error", 100 * error, "%", 8, 3),
        Row(f"{target}_kendall_tau", tau, "", 0.85, 0.95, lower_is_better=False),
        Row(f"{target}_error_by_cross_validation", 100 * held_out.error, "%"),
        Row(f"{target}_kendall_tau_of_flops", flops_tau, "", lower_is_better=False),
    ]
    raw = {
        "seconds": seconds,
        "table": [_raw(each) for each in table.measured],
        "unseen": [{**_raw(each), "predicted_ms": float(ms)} for each, ms in zip(unseen, predicted, strict=True)],
        "error_quantiles": [float(q) for q in np.quantile(np.abs(predicted / truth - 1), (0.5, 0.9, 1.0))],
    }
    return rows, raw


def _raw(each: MeasuredDesign) -> dict[str, Any]:
    return {"design": dict(each.design), "medians_ms": list(each.medians_ms[""]), "flops": each.design.cost().flops}


def _say_progress(progress: Progress) -> None:
    if progress.done % SAY_EVERY == 0:
        say(f"{progress.done} of {progress.total} engines")


if __name__ == "__main__":
    main(run, __doc__)
