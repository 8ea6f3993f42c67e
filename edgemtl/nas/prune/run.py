"""Pruning a run's design under budgets, with every task watched: `edgemtl prune`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgemtl.data import Source
from edgemtl.devices import Device, load_device
from edgemtl.errors import UserError
from edgemtl.files.claim import claim
from edgemtl.files.disk import write_json
from edgemtl.files.seals import sha256
from edgemtl.models import MultiTaskNet
from edgemtl.nas.evaluation import (
    Candidate,
    Evaluation,
    Evaluator,
    Finalist,
    Limit,
    Problem,
    check_budgets,
    choose,
    fast_enough,
    measure_finalists,
    prepare_images,
    timed_scopes,
)
from edgemtl.nas.prune.apply import PRUNING_FILE, PRUNING_SCHEMA
from edgemtl.nas.prune.criterion import JUDGED_IMAGES, RECALIBRATION_IMAGES, LossCriterion
from edgemtl.nas.prune.cut import Group
from edgemtl.nas.prune.decide import (
    LATENCY_TRIES,
    Kept,
    Prunable,
    check_feasible,
    decide,
    group_rows,
    resolve_limits,
    weights_of,
)
from edgemtl.nas.prune.fit import Fit
from edgemtl.nas.prune.groups import net_groups
from edgemtl.nas.prune.map import PruneMap
from edgemtl.nas.prune.trials import Trials
from edgemtl.nas.runs import OneDesign, RunFolder, RunInfo, finalize_run
from edgemtl.progress import Report, silent
from edgemtl.results import RESULT_FILE, Result, read_result
from edgemtl.runs import RunConfig
from edgemtl.spaces import Cost, Design, Space, is_precision, with_channels
from edgemtl.targets import ExportTarget
from edgemtl.tasks import relative_change, remaining_drop
from edgemtl.units import MOST_DROP, Budget, Floor

__all__ = ["PruneRequest", "Pruning", "open_pruning", "prune"]

MAP_FILE = "prune_map.json"


@dataclass(frozen=True)
class PruneRequest:
    """What to prune, and under what.

    `budgets` are upper limits in FLOPs, parameters, bytes or ms, percentages those of the unpruned design; `floors`
    refer to the run's baseline, as in a search. `fast` decides by the sensitivity map alone, which is kept with the
    run's design for the next budget; otherwise every cut is tried on the net that earlier ones left. `precisions` tries
    the pruned net in every precision, as the end of a search does, and takes the fastest that loses next to nothing.
    `device` names another one than the run's own.
    """

    run: Path
    out: Path
    budgets: tuple[str, ...]
    floors: tuple[str, ...] = ()
    design: str = "best"
    fast: bool = False
    precisions: bool = False
    device: str | None = None
    resume: bool = False
    command: str = "edgemtl prune"


@dataclass(frozen=True)
class Pruning:
    """A run's design, ready to be pruned."""

    unpruned: Candidate
    subject: Prunable

    def design(self, kept: Kept) -> Design:
        """The unpruned design with `kept` channels in each group."""
        before = self.unpruned.design
        return before.space.design(before, {**dict(before.pruned), **_channels(self.subject.groups, kept)}.items())

    def net(self, known: PruneMap, kept: Kept) -> MultiTaskNet:
        """The net with the most important `kept` channels of each group; `recalibrate` it before it is used."""
        found = self.subject.net(known, kept)
        assert isinstance(found, MultiTaskNet)
        return found


def open_pruning(run: Path, design: str = "best", device: Device | None = None) -> Pruning:
    """A kept design of a run, ready to be pruned, for the run's device or another.

    Raises `UserError` where the run or its data are not what they were, and where a task has no label among the
    calibration images, which decide.
    """
    folder = RunFolder(run)
    unpruned = folder.load(design)
    if device is not None:
        unpruned = _moved(unpruned, folder.space(device))
    source = folder.source()
    criterion, multiple = LossCriterion(source), folder.target().traits.channel_multiple
    criterion.check_labels()
    cache_key = {
        "design": unpruned.design.key,
        "weights_sha256": sha256(run / "designs" / design / "weights.safetensors"),
        "data_fingerprint": source.fingerprint,
        "images": [RECALIBRATION_IMAGES, JUDGED_IMAGES],
        "multiple": multiple,
    }
    groups, map_file = net_groups(unpruned.net), run / "designs" / design / MAP_FILE
    cost, key = partial(_cost, unpruned.design, groups), partial(_key, unpruned.design, groups)
    return Pruning(unpruned, Prunable(unpruned.net, groups, criterion, multiple, cost, key, map_file, cache_key))


def _moved(candidate: Candidate, space: Space) -> Candidate:
    """The same net in the space of another device; a precision that it lacks becomes float, which is no less exact."""
    before, values = candidate.design, {}
    for choice in space.choices:
        value = before.get(choice.name, choice.options[0])
        values[choice.name] = choice.options[0] if is_precision(choice) and value not in choice.options else value
    return replace(candidate, design=space.design(values, before.pruned))


def _channels(groups: Sequence[Group], kept: Kept) -> dict[str, int]:
    return {name: kept[g.name] for g in groups for name in g.convolutions if kept.get(g.name, g.size) < g.size}


def _cost(design: Design, groups: Sequence[Group], kept: Kept, task: str | None) -> Cost:
    plan = with_channels(design.plan, _channels(groups, kept))
    space = design.space
    return plan.cost(design.precision, task, space.int8_channel_bytes, space.quantities)


def _key(design: Design, groups: Sequence[Group], kept: Kept) -> str:
    return design.space.design(design, {**dict(design.pruned), **_channels(groups, kept)}.items()).key


def prune(request: PruneRequest, report: Report = silent) -> Result:
    """Remove channels of a run's design until it keeps the budgets, and write the result as a run of its own.

    Channels go by groups of the dependency graph of all heads at once; a group that one task alone reaches is judged by
    that task alone (PAGCP, Ye et al. 2023). Decisions are made on calibration images, the scores of the result on test
    images; its baseline is the unpruned design, which teaches it where `fine_tune` trains it further. `resume` goes on
    from what was tried before. Raises `UserError` for budgets that cannot be met, saying what can; for a floor that the
    design breaks unpruned; where a task has no label among the calibration images, and where another process writes the
    run.
    """
    with claim(request.out, "prune"):
        return _prune(request, report)


def _prune(request: PruneRequest, report: Report) -> Result:
    started = time.monotonic()
    folder, before = RunFolder(request.out), RunFolder(request.run).config()
    if not request.resume:
        folder.check_free()
    other = load_device(request.device) if request.device else None
    target = RunFolder(request.run).target(other)
    pruning = open_pruning(request.run, request.design, other)
    subject = pruning.subject
    wanted = {"floors": list(request.floors), "fast": request.fast, "precisions": request.precisions}
    source = subject.criterion.source
    limits, floors = resolve_limits(subject, request.budgets, request.floors, before.target)
    prepare_images(source, report)
    floors = _rest_of(floors, request, pruning)
    changes: dict[str, Any] = {
        "strategy": "prune",
        "strategy_config": {},
        "device": target.device,
        "budgets": request.budgets,
        "floors": tuple(f"{floor.task}={100 * floor.max_drop:.4f}%" for floor in floors),
        "tuned": None,
        "pruned": {**wanted, **subject.cache_key},
    }
    config = before.model_copy(update=changes)
    folder.check(config, request.resume)
    if (request.out / RESULT_FILE).is_file():
        return read_result(request.out)
    evaluator, problem = _scoring(pruning, source, target, before, limits, floors)
    timed = partial(_timed, pruning, evaluator)
    check_feasible(subject, problem.limits, timed, "prune a smaller design")
    folder.create(config)
    trials = Trials(request.out / "trials.jsonl")
    weights = weights_of({task.name: problem.preference[task.name] for task in source.tasks}, floors)
    known, fit = decide(subject, problem.limits, weights, request.fast, trials, timed, report)
    narrow, design = pruning.net(known, fit.kept), pruning.design(fit.kept)
    _write_pruning(request, pruning, known, fit, narrow)
    finalist = _finalist(request, problem, _of(evaluator, design, narrow), design)
    tried = len(trials) or sum(len(curve.rises) for curve in known.curves.values())
    said = RunInfo(request.command, before.seed, "prune", request.budgets, tried, started)
    return finalize_run(folder, said, evaluator, problem, pruning.unpruned, [finalist], report)


def _rest_of(floors: Sequence[Floor], request: PruneRequest, pruning: Pruning) -> tuple[Floor, ...]:
    """What the unpruned design has left of each floor, which refers to the run's baseline; judged by calibration.

    Raises `UserError` for a floor that it breaks already.
    """
    if not floors or request.design == "baseline":
        return tuple(floors)
    source, found = pruning.subject.criterion.source, []
    scores = pruning.subject.criterion.scores(pruning.unpruned.net)
    baseline = pruning.subject.criterion.scores(RunFolder(request.run).load("baseline").net)
    for floor in floors:
        task = next(task for task in source.tasks if task.name == floor.task)
        rest = remaining_drop(task, scores[task.name], baseline[task.name], floor.max_drop)
        if rest <= 0:
            lost = abs(relative_change(task, scores[task.name], baseline[task.name]))
            raise UserError(
                f"floor {floor.task}={100 * floor.max_drop:g}%: design {request.design} has lost {100 * lost:.2f} % "
                f"of {floor.task} against its run's baseline before anything is pruned: raise the floor, or prune "
                "another --design"
            )
        found.append(Floor(floor.task, min(rest, MOST_DROP)))
    return tuple(found)


def _scoring(
    pruning: Pruning,
    source: Source,
    target: ExportTarget,
    run: RunConfig,
    limits: Sequence[Limit],
    floors: tuple[Floor, ...],
) -> tuple[Evaluator, Problem]:
    """What scores and times nets, and the problem, its limits in ms resolved and the unpruned net its baseline.

    The preference, and the threads that engines are timed with, are those of the configuration `run`.
    """
    base = pruning.unpruned
    budgets = [limit.budget for limit in limits]
    measurer = check_budgets(budgets, target)
    supernet = OneDesign(base.design, base.net, "").supernet()
    evaluator = Evaluator(source, target, measurer, timed_scopes(budgets), run.threads or 0, supernet=supernet)
    evaluator.check_labels()
    ms = evaluator.time(base) if any(not limit.exact for limit in limits) else {}
    resolved = [limit if limit.exact else replace(limit, value=_ms_limit(limit.budget, ms)) for limit in limits]
    baseline = evaluator.simulated(base)
    problem = Problem(base.design.space, tuple(resolved), floors, run.preference, baseline, evaluator.is_timed)
    return evaluator, problem


def _ms_limit(budget: Budget, unpruned_ms: Mapping[str, float]) -> float:
    return budget.limit(unpruned_ms[budget.task or ""])


def _timed(pruning: Pruning, evaluator: Evaluator, known: PruneMap, kept: Kept) -> dict[str, float]:
    """Latency in ms of the engine of the net with `kept` channels."""
    design = pruning.design(kept)
    own = _of(evaluator, design, pruning.net(known, kept))
    return own.time(own.candidate(design))


def _of(evaluator: Evaluator, design: Design, net: MultiTaskNet) -> Evaluator:
    """What scores this one net."""
    return replace(evaluator, supernet=OneDesign(design, net, "").supernet())


def _finalist(request: PruneRequest, problem: Problem, evaluator: Evaluator, design: Design) -> Finalist:
    """The pruned net in its own precision, or in the one that suits it best."""
    if request.precisions:
        return choose(problem, fast_enough(problem, measure_finalists(problem, evaluator, design)))
    candidate = evaluator.candidate(design)
    latency_ms = _fastest(evaluator, candidate, problem.limits) if evaluator.is_timed else {}
    return Finalist(candidate, Evaluation(design, evaluator.simulated(candidate), latency_ms), 1.0)


def _fastest(evaluator: Evaluator, candidate: Candidate, limits: Sequence[Limit]) -> dict[str, float]:
    """Latency in ms by scope; timed again where a limit does not hold, as the limits were while deciding."""
    found = evaluator.time(candidate)
    for _ in range(LATENCY_TRIES - 1):
        if all(found[limit.budget.task or ""] <= limit.value for limit in limits if not limit.exact):
            break
        again = evaluator.time(candidate)
        found = {scope: min(ms, again[scope]) for scope, ms in found.items()}
    return found


def _write_pruning(request: PruneRequest, pruning: Pruning, known: PruneMap, fit: Fit, narrow: MultiTaskNet) -> None:
    """Keep what was decided: channels of every group before and after, and the task that blocked it."""
    after = pruning.subject.criterion.losses(narrow, list(known.base)).losses
    losses = {task: {"before": loss, "after": after[task]} for task, loss in known.base.items()}
    mode = "fast" if request.fast else "sequential"
    content = {"schema": PRUNING_SCHEMA, "mode": mode, "tolerance": fit.tolerance, "calibration_losses": losses}
    write_json(request.out / PRUNING_FILE, {**content, "groups": group_rows(pruning.subject.groups, fit)})
