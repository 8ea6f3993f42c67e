"""A searched design trained further, as a run of its own."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from edgemtl.data import Source, open_source
from edgemtl.files.claim import claim
from edgemtl.nas.evaluation import (
    Candidate,
    Evaluation,
    Finalist,
    Limit,
    NetEvaluator,
    Problem,
    check_budgets,
    timed_scopes,
)
from edgemtl.nas.latency import estimate_for
from edgemtl.nas.runs.folder import RunFolder
from edgemtl.nas.runs.outcome import RunInfo, finalize_run
from edgemtl.nas.runs.tuning import recipe_for, subject_of, tune_design
from edgemtl.progress import Report, silent
from edgemtl.results import RESULT_FILE, Result, read_result
from edgemtl.targets import measurer_of
from edgemtl.tasks import parse_floor
from edgemtl.train import Recipe
from edgemtl.units import parse_budget

__all__ = ["fine_tune"]


def fine_tune(
    run: Path,
    out: Path,
    recipe: Recipe | None = None,
    *,
    name: str = "best",
    processes: int = 1,
    resume: bool = False,
    command: str = "edgemtl train",
    report: Report = silent,
) -> Result:
    """Train the kept design `name` of a run further, and write it as a run of its own in `out`; its result.

    It is trained by `recipe`, by default that of `recipe_for` its run: from labels and, by the share that the recipe
    leaves, from the outputs of the run's baseline (the largest design, in float); through the rounding of its INT8
    blocks; its precision stays. Ranges, latency and scores are made anew, and statistics where the recipe does not
    freeze them. `resume` goes on from the checkpoint. Raises `UserError` for an unknown design, for an `out` that holds
    something else or is in use, and for a limit in ms of engines that cannot be timed on this machine.
    """
    with claim(out, "train"):
        started, recipe = time.monotonic(), recipe or recipe_for(run)
        subject, folder, before = subject_of(run, name), RunFolder(out), RunFolder(run).config()
        request = {"design": name, "fingerprint": subject.fingerprint, "recipe": recipe.as_json()}
        config = before.model_copy(update={"tuned": request})
        folder.check(config, resume)
        if (out / RESULT_FILE).is_file():
            return read_result(out)
        _check_budgets(run, before.budgets)
        folder.create(config)
        tuned = tune_design(run, name, out / "training", recipe, processes, command, report)
        problem, evaluator, base = _scoring(run, open_source(before.data, subject.design.space.size))
        made_of = evaluator.as_trained if recipe.frozen_statistics else evaluator.measured_rounded
        candidate = made_of(subject.design, tuned.net, tuned.limits)
        evaluation = Evaluation(subject.design, evaluator.simulated(candidate), evaluator.time(candidate))
        searched = read_result(run)
        info = RunInfo(
            command,
            recipe.seed,
            searched.strategy,
            searched.budgets,
            searched.evaluations,
            started,
            objectives=searched.objectives,
        )
        return finalize_run(folder, info, evaluator, problem, base, [Finalist(candidate, evaluation, 1.0)])


def _check_budgets(run: Path, budgets: Sequence[str]) -> None:
    remedy = f"train run {run} further on that machine, or search here first"
    target, parsed = RunFolder(run).target(), [parse_budget(text) for text in budgets]
    check_budgets(parsed, target, remedy, estimated=estimate_for(target, parsed) is not None)


def _scoring(run: Path, source: Source) -> tuple[Problem, NetEvaluator, Candidate]:
    """The run's problem, its limits resolved against its baseline as it is today, and what scores its designs."""
    config, base = RunFolder(run).config(), RunFolder(run).load("baseline")
    target = RunFolder(run).target()
    budgets = [parse_budget(text) for text in config.budgets]
    scopes, threads = timed_scopes(budgets), config.threads or 0
    estimate = estimate_for(target, budgets, config.objectives)
    evaluator = NetEvaluator(source, target, measurer_of(target), scopes, threads, estimate)
    latency_ms = evaluator.time(base)
    metrics = evaluator.simulated(base)
    of_base = Evaluation(base.design, metrics, latency_ms)
    limits = tuple(Limit(budget, budget.limit(Limit(budget, 0).measured(of_base))) for budget in budgets)
    floors = tuple(parse_floor(text, source.tasks) for text in config.floors)
    problem = Problem(base.design.space, limits, floors, config.preference, metrics, evaluator.is_timed)
    return problem, evaluator, base
