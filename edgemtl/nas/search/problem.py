"""The problem of a search with its weights: limits resolved, the baseline scored, sensitivities known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from edgemtl.errors import UserError
from edgemtl.models import read_header
from edgemtl.nas.evaluation import (
    SENSITIVITY_FILE,
    FloorRow,
    Limit,
    PreflightRow,
    Problem,
    copy_sensitivity,
    keeps_all,
    limits_of,
    measure_into_run,
    one_step_down,
    preflight_budgets,
    preflight_floors,
    read_sensitivity,
    sensitivity_origin,
    share_sensitivity,
    standard_error,
)
from edgemtl.nas.runs import RunFolder
from edgemtl.nas.search.finetuning import FineTuneEstimate, estimate
from edgemtl.nas.search.setup import Setup
from edgemtl.nas.search.strategies import Preparation, Prepared
from edgemtl.progress import Progress, Report, silent
from edgemtl.schema import Name
from edgemtl.spaces import Design, Space, Values

__all__ = ["Preflight", "look_ahead", "prepare_again", "prepare_strategy", "trained_near", "tuning_estimate"]

_NEAR = TypeAdapter(Annotated[list[dict[Name, int | str]], Field(max_length=1000)])


@dataclass(frozen=True)
class Preflight(Progress):
    """The table before the search: what three designs take of every limit, and lose of every floor.

    `floors` are None where the weights are still to be learnt; `keeps_all` names the design that is known to keep all.
    `finetune` is the training to come after it, None where there is none.
    """

    rows: tuple[PreflightRow, ...] = ()
    floors: tuple[FloorRow, ...] | None = ()
    keeps_all: str = ""
    finetune: FineTuneEstimate | None = None


def look_ahead(setup: Setup, report: Report) -> tuple[list[PreflightRow], Problem | None]:
    """The pre-flight table, which is reported, and the problem; no problem yet where weights are still to be learnt.

    Raises `UserError` where a limit cannot be met.
    """
    setup.evaluator.check_labels()
    rows = preflight_budgets(setup.space, setup.budgets, setup.evaluator)
    tuning = tuning_estimate(setup, limits_of(rows))
    if not setup.strategy.needs.supernet:
        report(Preflight("preflight", 1, 1, rows=tuple(rows), floors=None if setup.floors else (), finetune=tuning))
        return rows, None
    problem = _problem(setup, rows)
    floors = preflight_floors(problem, setup.evaluator)
    named = keeps_all(problem, rows, floors)
    report(Preflight("preflight", 1, 1, rows=tuple(rows), floors=tuple(floors), keeps_all=named, finetune=tuning))
    return rows, problem


def tuning_estimate(setup: Setup, limits: Sequence[Limit]) -> FineTuneEstimate | None:
    """The training to come after a search under these limits; None where there is none."""
    if not setup.request.finetune:
        return None
    return estimate(setup.request, limits, setup.evaluator, setup.space.largest())


def prepare_strategy(
    setup: Setup, rows: Sequence[PreflightRow], problem: Problem | None, begun: bool, report: Report
) -> tuple[Prepared, Problem]:
    """The strategy after its own stage, and the problem with what it needs to know of the weights.

    Where the run has `begun` to evaluate designs, it goes on with what it knew then.
    """
    prepared = _prepared(setup, limits_of(rows), report)
    return prepared, _with_sensitivity(setup, problem or _problem(setup, rows), begun, report)


def prepare_again(setup: Setup, problem: Problem) -> Prepared:
    """The strategy of a run whose own stage has ended, as another process finds it."""
    return _prepared(setup, problem.limits, silent)


def _prepared(setup: Setup, limits: tuple[Limit, ...], report: Report) -> Prepared:
    request = setup.request
    folder = RunFolder(request.out).path / request.strategy
    return setup.strategy.prepare(
        Preparation(setup.space, limits, setup.supernet, setup.evaluator, request.seed, folder, report)
    )


def _problem(setup: Setup, rows: Sequence[PreflightRow]) -> Problem:
    evaluator = setup.evaluator
    largest = evaluator.candidate(setup.space.largest())
    baseline = evaluator.simulated(largest)
    for task, scores in baseline.items():
        if not all(map(math.isfinite, scores.values())):
            raise UserError(f"the largest design has no finite score in task {task!r}: train the supernet again")
    near = trained_near(setup.weights, setup.space)
    noise = standard_error(setup.source.tasks, baseline, evaluator.validation_images, setup.preference)
    return Problem(
        setup.space,
        limits_of(rows),
        setup.floors,
        setup.preference,
        baseline,
        evaluator.is_timed,
        noise=noise,
        watch=evaluator.watch(largest, baseline, setup.floors),
        objectives_given=setup.objectives,
        trained_near=near,
        known_from={"first designs": f"{len(near)} that the supernet was trained near"} if near else {},
    )


def trained_near(weights: Path | None, space: Space) -> tuple[Design, ...]:
    """The designs that a supernet's training drew near, by the file's header; none where it drew anywhere.

    Those with blocks that the space's target lacks are not among them. Raises `UserError` where the header names
    designs that the space does not have.
    """
    near = read_header(weights).get("near", []) if weights else []
    try:
        drawn = _NEAR.validate_python(near, strict=True)
        return tuple(space.design(values) for values in drawn if not _has_left_out(values, space))
    except (ValidationError, UserError) as error:
        raise UserError(
            f"supernet {weights}: the designs that it was trained near are damaged: train it again"
        ) from error


def _has_left_out(values: Values, space: Space) -> bool:
    return any(values.get(name) in options for name, options in space.left_out.items())


def _with_sensitivity(setup: Setup, problem: Problem, begun: bool, report: Report) -> Problem:
    """The problem with the map in the run, the one next to the supernet, or one that is measured now.

    A run that has `begun` to evaluate designs without one goes on so, unless it is worth measuring: a map that other
    searches have measured since would have it propose other designs than a run that was not stopped.
    """
    request, need = setup.request, setup.strategy.needs.sensitivity
    if need == "unused" or setup.weights is None:
        return problem
    config, evaluator, run = setup.config, setup.evaluator, setup.request.out
    cache_key = {"supernet_sha256": str(config.supernet_sha256), "data_fingerprint": config.data_fingerprint}
    worthwhile = need == "required" or len(one_step_down(problem.space)) <= request.evaluations
    sensitivity = read_sensitivity(run / SENSITIVITY_FILE, cache_key)
    if sensitivity is None and (worthwhile or not begun):
        sensitivity = copy_sensitivity(setup.weights, run, cache_key)
    if sensitivity is None and worthwhile:
        sensitivity = measure_into_run(
            run,
            cache_key,
            problem.space,
            lambda design: problem.requirements.finite(evaluator.simulated(evaluator.candidate(design))),
            problem.baseline,
            report,
        )
        share_sensitivity(setup.weights, run, cache_key)
    if sensitivity is None:
        return problem
    known_from = {**problem.known_from, "sensitivities": sensitivity_origin(run)}
    return replace(problem, sensitivity=sensitivity, known_from=known_from)
