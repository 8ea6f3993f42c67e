"""INT8 engines of every runtime here against their simulation: equal values, and what a difference does to metrics.

The search scores simulations, and an export ships engines: one has to be the other, on every class of processor, by its
own scheme and by the portable one. Values are raw outputs of all tasks over test images, equal to the last bit.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from _common import Outcome, Row, main, say
from _int8 import TARGETS, candidates, opened_int8, samples_of, schemes
from _runs import scenes_evaluator

from edgemtl.data import collate
from edgemtl.models.quantization import simulate
from edgemtl.nas.evaluation import Candidate, Evaluator
from edgemtl.targets import ExportTarget
from edgemtl.tasks import by_tensor, map_outputs, relative_change
from edgemtl.train import Scorer


def compared(evaluator: Evaluator, candidate: Candidate, target: ExportTarget, quick: bool) -> dict[str, float]:
    """Share of equal values, and the largest relative change of a task's metric in either direction."""
    tasks = [task.name for task in candidate.net.tasks]
    simulation = simulate(candidate.net, candidate.design.precision, candidate.ranges, target.scheme)
    scorers = {name: Scorer(evaluator.source.tasks) for name in ("engine", "simulation")}
    same = total = 0
    with opened_int8(candidate, target) as session:
        for sample in samples_of(evaluator, quick):
            batch = collate([sample], evaluator.source.tasks)
            found = map_outputs(np.copy, session.run(batch.image, tasks))
            expected = map_outputs(torch.Tensor.numpy, simulation(torch.from_numpy(batch.image)))
            scorers["engine"].update(found, batch)
            scorers["simulation"].update(expected, batch)
            values = by_tensor(expected)
            same += sum(int((value == values[name]).sum()) for name, value in by_tensor(found).items())
            total += sum(value.size for value in values.values())
    scores = {name: scorer.compute() for name, scorer in scorers.items()}
    changes = (relative_change(t, *(scores[n][t.name] for n in scorers)) for t in evaluator.source.tasks)
    return {"equal": same / total, "metric_change": max(map(abs, changes))}


def run(options: argparse.Namespace) -> Outcome:
    """The worst design by each scheme, for each runtime."""
    rows, raw = [], {}
    for name in TARGETS:
        space, evaluator = scenes_evaluator(name)
        nets = candidates(space, evaluator, options.quick)
        for kind, target in schemes(name).items():
            found = {size: compared(evaluator, candidate, target, options.quick) for size, candidate in nets.items()}
            say(f"{name} {kind} ({target.scheme.weight_limit} steps): {found}")
            raw[f"{name}/{kind}"] = {"weight_limit": target.scheme.weight_limit, **found}
            equal = min(each["equal"] for each in found.values())
            changed = max(each["metric_change"] for each in found.values())
            rows.append(Row(f"equal_values_on_{name}_{kind}", equal, "fraction", 0.97, 0.999, lower_is_better=False))
            rows.append(Row(f"metric_change_on_{name}_{kind}", 100 * changed, "%", 0.5, 0.1))
    return Outcome(rows, raw)


if __name__ == "__main__":
    main(run, __doc__)
