"""Shrinkage of noisy scores: the best of many is the luckiest, not the best.

An accuracy on a few hundred images has a standard error of a point or two, which is as much as designs differ by; dense
tasks have thousands of labels an image and next to none. So measured scores are shrunk towards what the sensitivity map
leads to expect (empirical Bayes in the form of James and Stein, Efron and Morris 1973): by the share of their scatter
about that expectation which their own noise explains.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from edgemtl.nas.evaluation.problem import Evaluation, Problem
from edgemtl.tasks import Task, kind_of

__all__ = ["ShrinkageEstimate", "shrinkage_estimate", "standard_error"]

ShrinkageEstimate = Callable[[Evaluation], float]
"""From an evaluation to the delta_m (a fraction) that it is worth."""

_FEWEST = 8
"""Evaluations that a line is worth being fitted through."""


def standard_error(
    tasks: Sequence[Task], baseline: Mapping[str, Mapping[str, float]], images: int, preference: Mapping[str, float]
) -> float:
    """Standard error of a delta_m measured on so many images, of the scores' own errors.

    Of the task means it is the root of the sum of squares; a task whose score has no known error adds nothing.
    """
    total = sum(preference.values())
    variance = 0.0
    for task in tasks:
        noise = kind_of(task).learning().noise(task, baseline[task.name], images)
        variance += (preference[task.name] / total * noise) ** 2
    return math.sqrt(variance)


def shrinkage_estimate(problem: Problem, evaluations: Sequence[Evaluation]) -> ShrinkageEstimate:
    """Estimate the delta_m of an evaluation from all `evaluations` by shrinkage.

    The measured one, where the problem has no noise or no sensitivity map, or there are too few evaluations.
    """
    evaluations = [each for each in evaluations if not each.stopped]  # others are noisier
    if not problem.noise or problem.sensitivity is None or len(evaluations) < _FEWEST:
        return lambda evaluation: problem.delta_m(evaluation.metrics)
    guesses = np.array([_guess(problem, evaluation) for evaluation in evaluations])
    measured = np.array([problem.delta_m(evaluation.metrics) for evaluation in evaluations])
    variation = float(((guesses - guesses.mean()) ** 2).sum())
    slope = float(((guesses - guesses.mean()) * measured).sum()) / variation if variation else 0.0
    start = float(measured.mean() - slope * guesses.mean())
    scatter = float(((measured - start - slope * guesses) ** 2).sum()) / (len(evaluations) - 2)
    trust = max(0.0, 1 - problem.noise**2 / scatter) if scatter else 1.0

    def estimate(evaluation: Evaluation) -> float:
        expected = start + slope * _guess(problem, evaluation)
        return expected + trust * (problem.delta_m(evaluation.metrics) - expected)

    return estimate


def _guess(problem: Problem, evaluation: Evaluation) -> float:
    """The delta_m that the sensitivity map expects of a design."""
    assert problem.sensitivity is not None
    changes = {
        task.name: float(problem.sensitivity.expect([evaluation.design], task.name)[0]) for task in problem.space.tasks
    }
    weights = [problem.preference[task.name] for task in problem.space.tasks]
    return float(np.average([changes[task.name] for task in problem.space.tasks], weights=weights))
