"""The largest, the chosen and the smallest design: metrics per task, size, and latency on each runtime (interleaved).

Metrics are of the real ONNX Runtime engine on test images; the largest and the smallest are in FP32, the chosen one
in the precision that the search gave it.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from functools import partial
from typing import Any

from _common import Outcome, Row, main, say
from _runs import scenes_evaluator, searched

from edgemtl.nas.evaluation import Candidate
from edgemtl.profiling import compare
from edgemtl.tasks import delta_m

TEST_IMAGES = 192
QUICK_IMAGES = 32


def run(options: argparse.Namespace) -> Outcome:
    """Measure the three designs; they must be clearly separated, the right way round."""
    arguments = ["--evaluations", "12"] if options.quick else []
    chosen = searched("quick" if options.quick else "first", "--budget", "2GFLOPs", *arguments).load("best")
    space, evaluator = scenes_evaluator("onnxruntime")
    ladder = {
        "largest": evaluator.candidate(space.largest()),
        "chosen": chosen,
        "smallest": evaluator.candidate(space.smallest()),
    }
    samples = evaluator.source.split("test")[: QUICK_IMAGES if options.quick else TEST_IMAGES]
    raw: dict[str, Any] = {}
    for name, candidate in ladder.items():
        cost = candidate.design.cost()
        raw[name] = {"flops": cost.flops, "params": cost.params, "weight_bytes": cost.weight_bytes}
        raw[name]["metrics"] = evaluator.score(candidate, samples)
        say(f"{name}: {raw[name]}")
    for target in ("onnxruntime", "openvino"):
        for name, value in _latencies(target, ladder, options.quick).items():
            raw[name][f"{target}_ms"] = value
    return Outcome(_rows(space.tasks, raw), raw)


def _latencies(target: str, ladder: dict[str, Candidate], quick: bool) -> dict[str, float]:
    _, evaluator = scenes_evaluator(target)
    with ExitStack() as stack:
        sessions = {name: stack.enter_context(evaluator.engine(candidate)) for name, candidate in ladder.items()}
        image, tasks = evaluator.sample_image, evaluator.tasks_of("")
        calls = {name: partial(session.run, image, tasks) for name, session in sessions.items()}
        samples = compare(calls, 4 if quick else 20)
    return {name: each.median_ms for name, each in samples.items()}


def _rows(tasks: Any, raw: dict[str, Any]) -> list[Row]:
    """Each step down must cost quality and buy latency and size."""
    scores = {name: delta_m(tasks, raw[name]["metrics"], raw["largest"]["metrics"]) for name in raw}
    rows = [
        Row("delta_m_lost_largest_to_chosen", -100 * scores["chosen"], "%", None),
        Row("delta_m_lost_chosen_to_smallest", 100 * (scores["chosen"] - scores["smallest"]), "%", 5, None, False),
        Row(
            "bytes_largest_over_chosen",
            raw["largest"]["weight_bytes"] / raw["chosen"]["weight_bytes"],
            "x",
            1.2,
            None,
            False,
        ),
        Row(
            "bytes_chosen_over_smallest",
            raw["chosen"]["weight_bytes"] / raw["smallest"]["weight_bytes"],
            "x",
            1.2,
            None,
            False,
        ),
    ]
    for target in ("onnxruntime", "openvino"):
        ms = {name: raw[name][f"{target}_ms"] for name in raw}
        rows.append(Row(f"{target}_largest_over_chosen", ms["largest"] / ms["chosen"], "x", 1.2, None, False))
        rows.append(Row(f"{target}_chosen_over_smallest", ms["chosen"] / ms["smallest"], "x", 1.2, None, False))
    return rows


if __name__ == "__main__":
    main(run, __doc__)
