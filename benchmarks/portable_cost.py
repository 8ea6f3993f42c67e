"""The portable INT8 scheme against this processor's own: metrics on test images, and latency in turns in one run.

Where both are the same scheme (this processor has nothing that others lack) it costs nothing, and is not timed.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from statistics import median

from _common import Outcome, Row, main, say
from _int8 import TARGETS, candidates, opened_int8, samples_of, schemes, worst_loss
from _runs import drawn, scenes_evaluator

from edgemtl.nas.evaluation import Candidate, Evaluator
from edgemtl.profiling import Call
from edgemtl.targets import ExportTarget

ENGINES = 6


def latencies(
    evaluator: Evaluator, candidate: Candidate, sides: dict[str, ExportTarget], engines: int
) -> dict[str, float]:
    """Median latency in ms of all tasks by each scheme, A B B A, over several engines."""
    tasks = [task.name for task in candidate.net.tasks]

    def opens(stack: ExitStack) -> dict[str, Call]:
        sessions = {kind: stack.enter_context(opened_int8(candidate, target)) for kind, target in sides.items()}
        return {kind: partial(session.run, evaluator.sample_image, tasks) for kind, session in sessions.items()}

    return {kind: median(samples.samples_ms) for kind, samples in drawn(opens, engines).items()}


def run(options: argparse.Namespace) -> Outcome:
    """The worst design for each runtime."""
    rows, raw = [], {}
    for name in TARGETS:
        space, evaluator = scenes_evaluator(name)
        sides, losses, ratios = schemes(name), [0.0], [1.0]
        nets = candidates(space, evaluator, options.quick) if sides["own"].scheme != sides["portable"].scheme else {}
        for size, candidate in nets.items():
            scores = {kind: _score(evaluator, candidate, target, options.quick) for kind, target in sides.items()}
            losses.append(worst_loss(evaluator, scores["portable"], scores["own"]))
            ms = latencies(evaluator, candidate, sides, 2 if options.quick else ENGINES)
            ratios.append(ms["portable"] / ms["own"])
            raw[f"{name}/{size}"] = {"metrics": scores, "median_ms": ms}
            say(f"{name} {size}: loses {losses[-1]:.2%}, takes {ratios[-1]:.3f} times as long")
        rows.append(Row(f"worst_metric_loss_on_{name}", 100 * max(losses), "%", None, 0.5))
        rows.append(Row(f"latency_on_{name}", max(ratios), "x", None, 1.05))
    return Outcome(rows, raw)


def _score(
    evaluator: Evaluator, candidate: Candidate, target: ExportTarget, quick: bool
) -> dict[str, dict[str, float]]:
    """Metrics of the real engine."""
    return replace(evaluator, target=target).score(candidate, samples_of(evaluator, quick))


if __name__ == "__main__":
    main(run, __doc__)
