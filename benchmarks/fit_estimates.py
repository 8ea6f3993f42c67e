"""Fit the efficiencies that estimates of latency follow: shares of this processor's rates by class of operator.

Designs of two shipped spaces are built, timed in several engines and profiled, as for a latency table, on each runtime;
the machine's rates are measured beside. What explains the parts' times best is kept in
`profiles/efficiencies/CLASS.RUNTIME.json` with the environment, the rates, and its error on designs held out: from then
on estimates for boards take it, the nearest class first.

About ten minutes a runtime on two cores that do nothing else: on a machine that does, the fit is worth nothing. --quick
fits few designs of one space on ONNX Runtime, and keeps nothing but what --out names.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from _common import Outcome, Row, main, say
from _runs import scenes_evaluator

from edgemtl.arithmetic import own_arithmetic
from edgemtl.nas.latency import (
    FITS,
    PASSES,
    Fit,
    MeasuredDesign,
    Roofs,
    fit_efficiencies,
    judge_efficiencies,
    key_of,
    measure_designs,
    measure_roofs,
    spread_designs,
    write_fit,
)
from edgemtl.progress import Progress
from edgemtl.spaces import Design

TARGETS, SPACES, DESIGNS = ("onnxruntime", "openvino"), ("cnn", "moe-vit"), 30
QUICK_DESIGNS, QUICK_PASSES = 12, 1
SAY_EVERY = 10
ROOT = Path(__file__).resolve().parent.parent


def add(parser: argparse.ArgumentParser) -> None:
    """Where the fits are kept."""
    parser.add_argument("--out", type=Path, help=f"folder of the fits; {FITS} of the checkout by default")


def run(options: argparse.Namespace) -> Outcome:
    """Both runtimes on designs of both spaces; with `quick` few designs of one on ONNX Runtime."""
    rows, raw = [], {}
    spaces = SPACES[: 1 if options.quick else None]
    count, passes = (QUICK_DESIGNS, QUICK_PASSES) if options.quick else (DESIGNS, PASSES)
    folder = options.out or (None if options.quick else ROOT / FITS)
    for target in TARGETS[: 1 if options.quick else None]:
        roofs = measure_roofs(own_arithmetic())
        measured = [each for space in spaces for each in measured_designs(target, space, count, passes)]
        own_rows, raw[target] = fit_and_keep(target, spaces, measured, roofs, folder)
        rows += own_rows
    return Outcome(rows, raw)


def measured_designs(
    target: str, name: str, count: int, passes: int, unseen: Sequence[Design] = ()
) -> list[MeasuredDesign]:
    """So many well spread designs of a space, and the `unseen`, each with its latency and the times of its parts."""
    space, evaluator = scenes_evaluator(target, name)
    designs = [*spread_designs(space, count), *unseen]
    key = key_of(space, evaluator.target, evaluator.measurer.kind, evaluator.threads)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "measured.json"
        measured, _ = measure_designs(designs, path, key, evaluator, passes, _say_progress)
    return measured


def fit_and_keep(
    target: str, spaces: Sequence[str], measured: Sequence[MeasuredDesign], roofs: Roofs, folder: Path | None
) -> tuple[list[Row], dict[str, Any]]:
    """The rows and raw figures of one runtime's fit, which is written into `folder`, if any."""
    held_out = judge_efficiencies(measured, roofs)
    fit = Fit(own_arithmetic(), target, tuple(spaces), fit_efficiencies(measured, roofs), roofs, held_out)
    if folder is not None:
        say(f"{write_fit(folder, fit)} was written")
    rows = [
        Row(f"{target}_mape_held_out", 100 * held_out.error, "%", aim=15),
        Row(f"{target}_kendall_tau_held_out", held_out.tau, "", aim=0.8, lower_is_better=False),
    ]
    return rows, asdict(fit)


def _say_progress(progress: Progress) -> None:
    if progress.done % SAY_EVERY == 0:
        say(f"{progress.done} of {progress.total} engines")


if __name__ == "__main__":
    main(run, __doc__, add)
