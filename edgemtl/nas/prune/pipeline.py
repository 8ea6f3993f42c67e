"""Pruning under budgets with every task watched: `edgemtl prune`, the same for whatever net."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgemtl.errors import UserError
from edgemtl.files.claim import claim
from edgemtl.files.disk import read_json, write_json
from edgemtl.files.json import check_schema
from edgemtl.files.paths import check_folder
from edgemtl.nas.evaluation import (
    Limit,
    NetEvaluator,
    Requirements,
    check_budgets,
    check_floor,
    prepare_images,
    timed_scopes,
)
from edgemtl.nas.prune.decide import Decision, check_feasible, resolve_budgets, task_weights
from edgemtl.nas.prune.declared import DeclaredModule
from edgemtl.nas.prune.finetuning import NO_TUNING, FineTuning, check_train_step
from edgemtl.nas.prune.map import PruneMap
from edgemtl.nas.prune.module import UserModule
from edgemtl.nas.prune.opened import Opened
from edgemtl.nas.prune.prunable import Channels
from edgemtl.nas.prune.record import pruning_record
from edgemtl.nas.prune.run import RunDesign
from edgemtl.nas.prune.trials import Trials
from edgemtl.nas.runs import RunInfo, check_free, score_result
from edgemtl.progress import Report, silent
from edgemtl.results import RESULT_FILE, Result, read_result, write_result
from edgemtl.signals import deferred
from edgemtl.tasks import MOST_DROP, Floor, remaining_drop

__all__ = ["PruneRequest", "prune"]

Metrics = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class PruneRequest:
    """A request for a pruning: the subject, its budgets and floors, and the folder to write.

    `budgets` are upper limits in FLOPs, parameters, bytes or ms, percentages those of the unpruned net; `floors` refer
    to the baseline of its run, or to the module as it is given. `fast` decides by the sensitivity map alone, which is
    kept for the next budget; otherwise every cut is tried on the net that earlier ones left. `tuning` trains what is
    left of a module.
    """

    subject: RunDesign | UserModule | DeclaredModule
    out: Path
    budgets: tuple[str, ...]
    floors: tuple[str, ...] = ()
    fast: bool = False
    tuning: FineTuning = NO_TUNING
    resume: bool = False
    command: str = "edgemtl prune"


def prune(request: PruneRequest, report: Report = silent) -> Result:
    """Remove channels of a net until it keeps the budgets, and write what is left with its result.

    Channels go by groups of the dependency graph of all heads at once; a group that one task alone reaches is judged by
    that task alone (PAGCP, Ye et al. 2023). Decisions are made on calibration images, limits are checked on validation
    images, the scores of the result are those on test images; its baseline is the unpruned net. `resume` goes on from
    what was tried before. Raises `UserError` for budgets that cannot be met, saying what can; for a floor that the net
    breaks unpruned; where a task has no label among the images that decide or score, and where another process writes
    in the folder.
    """
    with claim(request.out, "prune"):
        return _prune(request, report)


def _prune(request: PruneRequest, report: Report) -> Result:
    started = time.monotonic()
    if not request.resume:
        check_free(request.out, *request.subject.folder)
    request.tuning.check(request.subject.noun)
    opened = request.subject.open(report)
    if request.tuning.steps:
        opened = opened.compensated(report)
    prunable, source = opened.prunable, opened.prunable.criterion.source
    limits = resolve_budgets(prunable, request.budgets, opened.target)
    floors = opened.floors(request.floors)
    evaluator = _evaluator(opened, limits)
    prepare_images(source, report)
    prunable.criterion.check_labels()
    if not request.resume:
        check_train_step(prunable.net, source, request.tuning)
    floors = _remaining(opened, floors)
    _begin(request, opened, floors, write=False)
    if (request.out / RESULT_FILE).is_file():
        return read_result(request.out)
    evaluator.check_labels()
    required = _requirements(opened, evaluator, limits, floors)

    def latency_ms(prune_map: PruneMap, channels: Channels) -> dict[str, float]:
        narrow = prunable.narrow(prune_map.orders, channels)
        return evaluator.time(evaluator.prepare(narrow, opened.unpruned.precision))

    check_feasible(prunable, required.limits, latency_ms, request.subject.noun)
    _begin(request, opened, floors, write=True)
    trials = Trials(request.out / "trials.jsonl")
    weights = task_weights({task.name: opened.preference[task.name] for task in source.tasks}, required.drops)
    decision = Decision(prunable, required.limits, weights, trials, latency_ms, report)
    prune_map, fit = decision.by_map() if request.fast else decision.by_trial()
    narrow, cut = prunable.narrow(prune_map.orders, fit.channels), prunable.chosen(prune_map.orders, fit.channels)
    mode = {"mode": "fast" if request.fast else "sequential"}
    record: dict[str, Any] = {**pruning_record(prunable, prune_map, fit, narrow.copy()), **mode}
    if request.tuning.steps:
        tuning = request.tuning.for_size(source.size)
        opened.fine_tune(narrow, cut, tuning, request.out / "training", report)
        record["finetuned"] = asdict(tuning)
    best = opened.finish(narrow, opened.design(fit.channels), evaluator, required)
    tried = len(trials) or sum(len(curve.rises) for curve in prune_map.curves.values())
    known_from = {"scores": opened.scores} if opened.scores else {}
    info = RunInfo(request.command, opened.seed, "prune", request.budgets, tried, started, known_from=known_from)
    base = opened.design({}), opened.unpruned
    result = score_result(info, opened.space, evaluator, required, base, [best], report)
    for entry in result.front:
        _check_finite(entry.metrics, "test", opened)
    with deferred():  # an older result and a newer net would not go together
        opened.save(request.out, best, record, cut)
        write_result(request.out, result)
    return result


def _begin(request: PruneRequest, opened: Opened, floors: Sequence[Floor], *, write: bool) -> None:
    """`UserError` where this request cannot begin in its folder, or, to be resumed, not go on there.

    With `write` it begins: from here on the folder can be resumed.
    """
    out, (file, what) = request.out, request.subject.folder
    settings: dict[str, Any] = {"floors": list(request.floors), "fast": request.fast}
    if request.tuning.steps:
        settings["finetune"] = asdict(request.tuning)
    config = json.loads(json.dumps(opened.config({"budgets": list(request.budgets), **settings}, floors)))
    if not request.resume or not (out / file).is_file():
        check_free(out, file, what)
    else:
        check_folder(out, what)
        stored = read_json(out / file, what)
        check_schema(stored, f"{what} {out}", config["schema"], "choose another --out")
        if changed := sorted(key for key in {*stored, *config} if stored.get(key) != config.get(key)):
            raise UserError(
                f"{what} {out} was started with another {', '.join(changed)}: resume it with the same, or choose "
                "another --out"
            )
    if write:
        write_json(out / file, config)


def _evaluator(opened: Opened, limits: Sequence[Limit]) -> NetEvaluator:
    """The evaluator of nets; `UserError` where a budget is in ms and nothing times the net's engine."""
    budgets = [limit.budget for limit in limits]
    if opened.not_exported and (timed := [budget for budget in budgets if not budget.counted]):
        raise UserError(
            f"budget {timed[0].text!r}: {opened.name} cannot be exported ({opened.not_exported}): give FLOPs or MB"
        )
    measurer, source = check_budgets(budgets, opened.target), opened.prunable.criterion.source
    return NetEvaluator(source, opened.target, measurer, timed_scopes(budgets), opened.threads)


def _remaining(opened: Opened, floors: tuple[Floor, ...]) -> tuple[Floor, ...]:
    """Remaining allowance of the unpruned net for each floor that refers to a baseline; calibration images decide.

    Raises `UserError` for a floor that it breaks already.
    """
    baseline = opened.baseline() if any(floor.relative for floor in floors) else None
    if baseline is None:
        return floors
    criterion = opened.prunable.criterion
    scores, before = criterion.scores(opened.prunable.net), criterion.scores(baseline)
    return tuple(_left_of(floor, scores, before, opened) if floor.relative else floor for floor in floors)


def _left_of(floor: Floor, scores: Metrics, before: Metrics, opened: Opened) -> Floor:
    """A floor against the baseline's scores, `before`, as one against those of the unpruned net."""
    task = floor.task.name
    drop = remaining_drop(floor.task, scores[task], before[task], floor.allowed, floor.metric)
    if drop <= 0:
        lost = task if floor.decides else f"{task} {floor.metric.name}"
        raise UserError(
            f"floor {floor.text}: {opened.name} has lost {100 * abs(floor.value(scores, before)):.2f} % of {lost} "
            "against its run's baseline before anything is pruned: raise the floor, or prune another --design"
        )
    return replace(floor, allowed=min(drop, MOST_DROP))


def _requirements(
    opened: Opened, evaluator: NetEvaluator, limits: Sequence[Limit], floors: tuple[Floor, ...]
) -> Requirements:
    """The problem of the pruned net: limits in ms resolved, and the unpruned net as baseline.

    Raises `UserError` for a floor that the unpruned net misses.
    """
    ms = evaluator.time(opened.unpruned) if any(not limit.exact for limit in limits) else {}
    resolved = tuple(
        limit if limit.exact else replace(limit, value=limit.budget.limit(ms[limit.budget.task or ""]))
        for limit in limits
    )
    baseline = evaluator.simulated(opened.unpruned)
    _check_finite(baseline, "validation", opened)
    for check in (check_floor(floor, baseline, baseline) for floor in floors):
        if not check.kept:
            raise UserError(
                f"{check.name}: {opened.name} has {check.metric} {check.amount(check.value)} on validation images "
                "before anything is pruned: allow that, or train it further first"
            )
    return Requirements(evaluator.source.tasks, resolved, floors, opened.preference, baseline)


def _check_finite(metrics: Mapping[str, Mapping[str, float]], split: str, opened: Opened) -> None:
    for task, scores in metrics.items():
        if not all(map(math.isfinite, scores.values())):
            raise UserError(
                f"{opened.name} has no finite score in task {task!r} on {split} images: its outputs are NaN or infinite"
            )
