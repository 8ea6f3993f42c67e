"""One task out of four on the searched design's engine, against an engine built for that task alone; interleaved.

Two engines of one file differ in speed for as long as they live, so samples are pooled over several engines of each.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import numpy as np
from _common import Outcome, Row, main
from _runs import drawn, scenes_evaluator, searched
from numpy.typing import NDArray

from edgemtl.models import MultiTaskNet
from edgemtl.nas.evaluation import Candidate
from edgemtl.profiling import ratios
from edgemtl.runtime import Session, open_engine
from edgemtl.targets import find_target

ENGINES = 6


def built(stack: ExitStack, target: str, candidate: Candidate, net: MultiTaskNet) -> Session:
    """An engine of `net` in the candidate's precision, open until the stack closes."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    precision = {name: kind for name, kind in candidate.design.precision.items() if name in {"engine", *net.blocks}}
    find_target(target).build(net, precision, candidate.ranges, folder)
    return stack.enter_context(closing(open_engine(folder)))


def opened(
    stack: ExitStack, target: str, candidate: Candidate, task: str, image: NDArray[np.float32]
) -> dict[str, Callable[[], object]]:
    """One task on the whole engine ("subset") and on its own ("alone")."""
    whole = built(stack, target, candidate, candidate.net)
    alone = built(stack, target, candidate, candidate.net.subset([task]))
    return {"alone": partial(alone.run, image, [task]), "subset": partial(whole.run, image, [task])}


def run(options: argparse.Namespace) -> Outcome:
    """Ratios for every task and runtime; the worst one counts."""
    arguments = ["--evaluations", "12"] if options.quick else []
    candidate = searched("quick" if options.quick else "first", "--budget", "2GFLOPs", *arguments).load("best")
    _, evaluator = scenes_evaluator("onnxruntime")
    image = evaluator.sample_image
    rows, raw = [], {}
    for target in ("onnxruntime", "openvino"):
        worst = 0.0
        for task in (task.name for task in candidate.net.tasks):
            opens = partial(opened, target=target, candidate=candidate, task=task, image=image)
            samples = drawn(opens, 1 if options.quick else ENGINES)
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
