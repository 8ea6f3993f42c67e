"""The end of a search: the best architectures in each precision, the front of them, and the design that is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgemtl.nas.evaluation import (
    Evaluation,
    Evaluator,
    Finalist,
    Problem,
    candidates_of,
    choose,
    fast_enough,
    front_of,
    measure_finalists,
    pick_architectures,
    shrinkage_estimate,
)
from edgemtl.progress import Progress, Report

__all__ = ["choose_front", "finalists_of", "refine", "with_corrections"]


def refine(
    problem: Problem, evaluator: Evaluator, evaluations: Sequence[Evaluation], count: int, report: Report
) -> tuple[list[Finalist], bool]:
    """The finalists of `count` architectures, and whether Ctrl-C cut this short: then those so far, at least one."""
    designs = pick_architectures(problem, evaluations, count, shrinkage_estimate(problem, evaluations))
    refined: list[Finalist] = []
    try:
        for number, design in enumerate(designs):
            report(Progress("finalists", number, len(designs), f"precisions of {design.key}"))
            refined += measure_finalists(problem, evaluator, design)
    except KeyboardInterrupt:
        as_evaluated = next(e for e in evaluations if e.design.key == designs[0].key)
        return refined or [Finalist(evaluator.candidate(designs[0]), as_evaluated, 1.0)], True
    report(Progress("finalists", len(designs), len(designs)))
    return refined, False


def finalists_of(evaluator: Evaluator, measured: Sequence[tuple[Evaluation, float]]) -> list[Finalist]:
    """Finalists that were measured before, each an evaluation and its ratio, with their nets extracted anew."""
    candidates = candidates_of(evaluator, [evaluation.design for evaluation, _ in measured])
    return [Finalist(candidate, *each) for candidate, each in zip(candidates, measured, strict=True)]


def with_corrections(problem: Problem, evaluator: Evaluator, finalist: Finalist) -> Finalist:
    """The best on the validation images of a finalist and those that corrections of its INT8 layers make of it."""
    finalists = [finalist]
    for candidate in evaluator.corrections(finalist.candidate):
        evaluation = replace(finalist.evaluation, metrics=evaluator.simulated(candidate))
        finalists.append(replace(finalist, candidate=candidate, evaluation=evaluation))
    return min(finalists, key=lambda each: problem.rank(each.evaluation))


def choose_front(
    problem: Problem, refined: Sequence[Finalist], evaluations: Sequence[Evaluation], size: int
) -> list[Finalist]:
    """Up to `size` finalists of the front, the chosen one first."""
    candidates = fast_enough(problem, refined)
    best = choose(problem, candidates, shrinkage_estimate(problem, evaluations))
    return [best, *(each for each in front_of(problem, candidates) if each is not best)][:size]
