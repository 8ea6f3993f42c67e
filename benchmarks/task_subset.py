"""One task out of four on the searched design's engine, against an engine built for that task alone; interleaved."""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

from _common import Outcome, Row, main
from _runs import scenes_evaluator, searched

from edgemtl.models import MultiTaskNet
from edgemtl.nas import Candidate
from edgemtl.profiling import compare, ratios
from edgemtl.runtime import Session, open_engine
from edgemtl.targets import find_target


def built(stack: ExitStack, target: str, candidate: Candidate, net: MultiTaskNet) -> Session:
    """An engine of `net` in the candidate's precision, open until the stack closes."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    precision = {name: kind for name, kind in candidate.design.precision.items() if name in {"engine", *net.blocks}}
    find_target(target).build(net, precision, candidate.ranges, folder)
    return stack.enter_context(closing(open_engine(folder)))


def run(options: argparse.Namespace) -> Outcome:
    """Ratios for every task and runtime; the worst one counts."""
    arguments = ["--evaluations", "12"] if options.quick else []
    candidate = searched("quick" if options.quick else "first", "--budget", "2GFLOPs", *arguments).load("best")
    _, evaluator = scenes_evaluator("onnxruntime")
    image = evaluator.sample_image
    rows, raw = [], {}
    for target in ("onnxruntime", "openvino"):
        with ExitStack() as stack:
            opened = partial(built, stack, target, candidate)
            whole = opened(candidate.net)
            worst = 0.0
            for task in (task.name for task in candidate.net.tasks):
                alone = opened(candidate.net.subset([task]))
                calls = {"alone": partial(alone.run, image, [task]), "subset": partial(whole.run, image, [task])}
                samples = compare(calls, 4 if options.quick else 20)
                found = ratios(samples, "alone")["subset"]
                raw[f"{target}/{task}"] = {
                    "ratio": found.value,
                    "interval": [found.low, found.high],
                    "alone_ms": samples["alone"].median_ms,
                    "subset_ms": samples["subset"].median_ms,
                }
                worst = max(worst, found.value)
            rows.append(Row(f"worst_task_on_{target}", worst, "x", 1.10, 1.02))
    return Outcome(rows, raw)


if __name__ == "__main__":
    main(run, __doc__)
