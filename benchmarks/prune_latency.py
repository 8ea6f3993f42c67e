"""Latency of the engines of nets pruned to six budgets in FLOPs, drawn in turns: it must fall at every step.

The net is the default space's largest on images of 96x128 pixels.
"""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from functools import partial
from itertools import pairwise

from _common import Outcome, Row, main
from _prunings import fitted, mapped
from _runs import drawn

from edgemtl.nas import Candidate, Evaluator
from edgemtl.nas._space import Design
from edgemtl.profiling import Call
from edgemtl.targets import find_target

BUDGETS = ("100%FLOPs", "85%FLOPs", "70%FLOPs", "55%FLOPs", "40%FLOPs", "25%FLOPs")
ENGINES = 6


def run(options: argparse.Namespace) -> Outcome:
    """The ratio of each latency to the one before; the largest is below 1 where all fall."""
    pruning, known = mapped(options.quick)
    traits = find_target("onnxruntime").traits
    nets = {}
    for budget in BUDGETS:
        kept = fitted(pruning, known, [budget]).kept
        nets[budget] = Candidate(_in_float(pruning.design(kept)), pruning.net(known, kept), None)
    supernet = pruning.unpruned.design.space.supernet()
    source = pruning.subject.judge.source
    evaluator = Evaluator(supernet, source, find_target("onnxruntime"), [""], traits.executes)
    tasks = evaluator.tasks_of("")

    def opens(stack: ExitStack) -> dict[str, Call]:
        sessions = {name: stack.enter_context(evaluator.engine(net)) for name, net in nets.items()}
        return {name: partial(s.run, evaluator.sample_image, tasks) for name, s in sessions.items()}

    ms = {name: samples.median_ms for name, samples in drawn(opens, 1 if options.quick else ENGINES).items()}
    ratios = [ms[after] / ms[before] for before, after in pairwise(BUDGETS)]
    rows = [Row("largest_step_ratio", max(ratios), "x", None if options.quick else 1.0)]
    return Outcome(rows, {"ms": ms, "flops": {name: net.design.cost().flops for name, net in nets.items()}})


def _in_float(design: Design) -> Design:
    """The design with every block in float, so that all engines differ in their channels alone."""
    return next(d for d in design.space.uniform(design) if set(d.precision.values()) == {"fp32", "float"})


if __name__ == "__main__":
    main(run, __doc__)
