"""Another budget, floor or preference from a finished run: what it measured serves again, in seconds.

Nothing that is known is measured: the design is chosen among all that the run evaluated, by their scores on validation
images, and only the chosen one is cut out again, compared with itself in float, and scored on test images.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from edgemtl.environment import environment
from edgemtl.errors import UserError
from edgemtl.nas.evaluation import (
    Evaluator,
    Finalist,
    Limit,
    Measured,
    Problem,
    choose,
    fast_enough,
    find_sensitivity,
    is_exportable,
    preflight_budgets,
    shrinkage_estimate,
    standard_error,
)
from edgemtl.nas.runs import (
    Measurements,
    RunFolder,
    RunInfo,
    finalize_run,
    read_measurements,
    write_measurements,
)
from edgemtl.nas.search.finetuning import tune_finalists
from edgemtl.nas.search.problem import Preflight, tuning_estimate
from edgemtl.nas.search.request import of_another
from edgemtl.nas.search.setup import Setup
from edgemtl.nas.search.strategies import make_strategy
from edgemtl.progress import Progress, Report, note
from edgemtl.results import Entry, Origin, Result, read_result
from edgemtl.runs import difference_of
from edgemtl.units import Budget

__all__ = ["Known", "choose_again", "known_in", "origin_of", "tell_elsewhere"]

_SAME = (
    "space",
    "fingerprint",
    "size",
    "data",
    "data_fingerprint",
    "tasks",
    "target",
    "device",
    "precisions",
    "supernet_sha256",
    "threads",
)
"""Fields of a run's configuration that its measurements are of."""
_TRIES = 3


@dataclass(frozen=True)
class Known:
    """A finished run: its folder, its measurements, and its result's largest design, answer and environment."""

    run: RunFolder
    measurements: Measurements
    baseline: Entry
    best: Entry | None
    environment: Mapping[str, Any]


def known_in(setup: Setup) -> Known:
    """The measurements of the run that a request names.

    `UserError`, one line, where that is of other data, another space, target, device or supernet than is asked for, of
    a net that was pruned or trained further, or has not ended.
    """
    assert setup.request.origin is not None
    run = RunFolder(setup.request.origin)
    config, result = run.config(), read_result(run.path)
    if config.pruned is not None or config.tuned is not None:
        how = "a pruning" if config.pruned is not None else "a training"
        raise UserError(f"run {run.path} is that of {how}: give --from the search that it began with")
    if config.supernet_sha256 is None or not make_strategy(config.strategy).needs.supernet:
        raise UserError(f"run {run.path} learnt weights for its own budget: search again without --from")
    if difference := difference_of(config, setup.config, _SAME):
        wanted = "the one that it searched by --supernet" if difference == "supernet" else "the same"
        raise of_another(run.path, difference, wanted)
    if result.baseline is None:
        raise UserError(f"run {run.path} has no baseline in its result: search again without --from")
    measurements = read_measurements(run.path, setup.space)
    known = Known(run, measurements, result.baseline, result.best, result.environment)
    if not known.measurements.measured:
        raise UserError(f"run {run.path} stopped scoring every design early: search again without --from")
    for budget in setup.budgets:
        if not budget.counted:
            _allowed_ms(budget, known)
    return known


def tell_elsewhere(setup: Setup, known: Known, report: Report) -> None:
    """A line where the run measured its latencies with another runtime or processor than there is here."""
    there, here = _measured_by(setup, known.environment), _measured_by(setup, environment())
    if there != here:
        note(report, f"latencies of run {known.run.path} are of {there}, here is {here}: if they decide, search anew")


def _measured_by(setup: Setup, where: Mapping[str, Any]) -> str:
    """The runtime and the processor that an environment gives latencies; empty where this machine gives none."""
    evaluator = setup.evaluator
    if not (evaluator.is_measured and evaluator.target.device.is_here):
        return ""
    runtime, cpu, packages = evaluator.target.traits.runtime, where.get("cpu"), where.get("packages")
    version = packages.get(runtime) if isinstance(packages, dict) else None
    return f"{runtime} {version} on {cpu.get('model') if isinstance(cpu, dict) else None}"


def origin_of(known: Known, unmeasured: str) -> Origin:
    """The run as a result names it."""
    return Origin(
        run=os.path.relpath(known.run.path), evaluations=len(known.measurements.measured), unmeasured=unmeasured
    )


def choose_again(setup: Setup, known: Known, started: float, report: Report) -> Result:
    """Choose among all that the run evaluated, and write a run of its own; its result says which run it is from."""
    request, evaluator = setup.request, setup.evaluator
    problem = _problem(setup, known, report)
    measured = known.measurements.measured
    RunFolder(request.out).create(setup.config)
    report(Progress("again", 0, 2, f"choosing among {len(measured)} measured designs"))
    best, unmeasured = _best(problem, evaluator, measured)
    report(Progress("again", 1, 2, f"{best.candidate.design.key} is scored"))
    by = _measured_by(setup, known.environment)
    info = RunInfo(
        request.command,
        request.seed,
        request.strategy,
        request.budgets,
        len(measured),
        started,
        known_from={"latencies": f"those of that run, by {by}"} if by else {},
        origin=origin_of(known, f"{unmeasured}{_untrained(known, request.finetune)}"),
        objectives=request.objectives,
    )
    folder, base = RunFolder(request.out), known.run.load("baseline")
    write_measurements(folder.path, problem.baseline, [], measured)
    front = [best]
    if request.finetune:
        folder.save("baseline", base)
        front, cut_short = tune_finalists(request, problem, evaluator, front, report)
        if cut_short:  # a result would stand for the whole answer
            raise KeyboardInterrupt
    result = finalize_run(folder, info, evaluator, problem, base, front, known_baseline=known.baseline)
    report(Progress("again", 2, 2))
    return result


def _problem(setup: Setup, known: Known, report: Report) -> Problem:
    """The problem, its limits resolved by counting and by the known latencies."""
    counted = [budget for budget in setup.budgets if budget.counted]
    rows = preflight_budgets(setup.space, counted, setup.evaluator)
    by_text = {row.budget.text: row.limit for row in rows}
    limits = [Limit(b, by_text[b.text]) if b.counted else Limit(b, _allowed_ms(b, known)) for b in setup.budgets]
    report(Preflight("preflight", 1, 1, rows=tuple(rows), finetune=tuning_estimate(setup, limits)))
    baseline, evaluator, config = known.measurements.baseline, setup.evaluator, setup.config
    cache_key = {"supernet_sha256": str(config.supernet_sha256), "data_fingerprint": config.data_fingerprint}
    sensitivity = find_sensitivity(setup.weights, known.run.path, cache_key) if setup.weights else None
    return Problem(
        setup.space,
        tuple(limits),
        setup.floors,
        setup.preference,
        baseline,
        evaluator.is_timed,
        sensitivity,
        standard_error(setup.source.tasks, baseline, evaluator.validation_images, setup.preference),
        objectives_given=setup.objectives,
    )


def _allowed_ms(budget: Budget, known: Known) -> float:
    """A budget in ms, a share of the largest design's known latency included."""
    timed = [each.evaluation.latency_ms for each in known.measurements.measured]
    if any((budget.task or "") not in latency_ms for latency_ms in timed):
        of = f"task {budget.task} alone" if budget.task else "its designs"
        raise UserError(f"budget {budget.text!r}: run {known.run.path} did not time {of}: search again without --from")
    if not budget.relative:
        return budget.limit(0.0)
    if budget.task is not None or known.baseline.latency_ms is None:
        raise UserError(
            f"budget {budget.text!r}: run {known.run.path} does not tell what it is a share of: give it in ms"
        )
    return budget.limit(known.baseline.latency_ms.value)


def _best(problem: Problem, evaluator: Evaluator, measured: Sequence[Measured]) -> tuple[Finalist, str]:
    """The chosen design with its net, and in words what was not measured of it.

    A latency that was predicted is measured now. A design that does not keep with it what it kept before, or that loses
    more to its precision than an export accepts, makes way for the next, a few times.
    """
    left, estimate = list(measured), shrinkage_estimate(problem, [each.evaluation for each in measured])
    first: Finalist | None = None
    for _ in range(min(_TRIES, len(measured))):
        chosen = choose(problem, fast_enough(problem, left), estimate)
        finalist = _timed(evaluator, chosen)
        kept = problem.feasible(finalist.evaluation) or not problem.feasible(chosen.evaluation)
        if kept and is_exportable(problem, evaluator, finalist, measured):
            return finalist, _unmeasured(chosen)
        first = first or finalist
        left.remove(chosen)
    assert first is not None
    return first, "the nearest ones lose to their precision what no export accepts, or are slower than was predicted"


def _timed(evaluator: Evaluator, chosen: Measured) -> Finalist:
    """The design with its net, and with a measured latency where there is one."""
    candidate, evaluation = evaluator.candidate(chosen.evaluation.design), chosen.evaluation
    if evaluation.latency_error:
        evaluation = replace(evaluation, latency_ms=evaluator.time(candidate), latency_error={})
    return Finalist(candidate, evaluation, chosen.ratio or 1.0)


def _unmeasured(chosen: Measured) -> str:
    """The figures of a chosen design that a search would have measured, and that are not known; in words."""
    if chosen.ratio is None:
        return "the chosen one's other precisions were not measured, and no other design was scored on test images"
    return "the chosen one was refined there, and no other design was scored on test images"


def _untrained(known: Known, steps: int) -> str:
    """The training that the run's own answer had and another does not have, in words; empty where there was none."""
    tuned = known.best.fine_tuning if known.best else None
    if steps or not tuned:
        return ""
    return f"; that run's own answer was trained for {tuned.steps} steps, as --finetune {tuned.steps} trains this one"
