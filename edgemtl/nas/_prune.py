"""Pruning a run's design under budgets, with every task watched: `edgemtl prune`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from edgemtl._files import sha256, write_json
from edgemtl.data import Source, open_source
from edgemtl.errors import UserError, unknown_name
from edgemtl.models import MultiTaskNet, narrowed
from edgemtl.nas._evaluator import Candidate, Evaluator
from edgemtl.nas._finalists import Finalist, choose, fast_enough, finalists
from edgemtl.nas._fit import Fit, by_map, by_trial, deepest
from edgemtl.nas._groups import Group, cut, net_groups
from edgemtl.nas._judge import JUDGED_IMAGES, RECALIBRATION_IMAGES, Judge, Verdict
from edgemtl.nas._outcome import Asked, conclude
from edgemtl.nas._problem import Evaluation, Limit, Problem, timed_scopes
from edgemtl.nas._prune_map import PruneMap, first_channels, measure_curves, open_map
from edgemtl.nas._prune_trials import Trials
from edgemtl.nas._run import RunFolder
from edgemtl.nas._search import SearchEvent, _prepare
from edgemtl.nas._space import Design
from edgemtl.nas._tune import _OneDesign
from edgemtl.results import RESULT_FILE, Result, read_result
from edgemtl.targets import find_target
from edgemtl.tasks import relative_change
from edgemtl.units import Budget, Floor, format_quantity, parse_budget, parse_floor

__all__ = ["PRUNING_FILE", "PruneRequest", "Pruning", "open_pruning", "prune"]

PRUNING_FILE = "pruning.json"
MAP_FILE = "prune_map.json"
SCHEMA = "edgemtl.pruning/1"
USUAL_FLOOR = 0.05
"""What a task without a floor counts as having: one with a floor of 2 % may lose two fifths of what that one may."""
LATENCY_ROUNDS = 6

Kept = Mapping[str, int]
Report = Callable[[SearchEvent], None]


@dataclass(frozen=True)
class PruneRequest:
    """What to prune, and under what.

    `budgets` are upper limits in FLOPs, parameters, bytes or ms, percentages those of the unpruned design; `floors`
    refer to the run's baseline, as in a search. `fast` decides by the sensitivity map alone, which is kept with the
    run's design for the next budget; otherwise every cut is tried on the net that earlier ones left. `precisions` tries
    the pruned net in every precision, as the end of a search does, and takes the fastest that loses next to nothing.
    """

    run: Path
    out: Path
    budgets: tuple[str, ...]
    floors: tuple[str, ...] = ()
    design: str = "best"
    fast: bool = False
    precisions: bool = False
    resume: bool = False
    command: str = "edgemtl prune"


@dataclass(frozen=True)
class Pruning:
    """A net that can be pruned: its groups, what judges them, and where its sensitivity map lies."""

    unpruned: Candidate
    judge: Judge
    groups: Sequence[Group]
    multiple: int
    map_file: Path
    made_for: Mapping[str, Any]

    def design(self, kept: Kept) -> Design:
        """The unpruned design with `kept` channels in each group."""
        before = self.unpruned.design
        return before.space.design(before, {**dict(before.pruned), **self._channels(kept)}.items())

    def _channels(self, kept: Kept) -> dict[str, int]:
        return {name: kept[g.name] for g in self.groups for name in g.convolutions if kept[g.name] < g.size}

    def shares(self, limits: Sequence[Limit], kept: Kept) -> list[float]:
        """What the net with `kept` channels takes of each counted limit."""
        before = self.unpruned.design
        plan = narrowed(before.plan, self._channels(kept))
        cost = partial(plan.cost, before.precision, int8_channel_bytes=before.space.int8_channel_bytes)
        found = ((limit, cost(limit.budget.task and [limit.budget.task])) for limit in limits if limit.exact)
        return [getattr(each, limit.budget.quantity) / limit.value for limit, each in found] or [0.0]

    def net(self, known: PruneMap, kept: Kept) -> MultiTaskNet:
        """The net with the most important `kept` channels of each group; `recalibrate` it before it is used."""
        fewer = {group.name: kept[group.name] for group in self.groups if kept[group.name] < group.size}
        return cut(self.unpruned.net, self.groups, first_channels(known.orders, fewer))

    def map(self, report: Callable[[int, int, str], None] = lambda done, total, text: None) -> PruneMap:
        """The whole sensitivity map, measured where it was not before."""
        args = self.unpruned.net, self.groups, self.judge
        return measure_curves(*args, self.multiple, self.orders(), self.map_file, self.made_for, report)

    def orders(self) -> PruneMap:
        """The map as far as it was measured, with the order of channels at least."""
        return open_map(self.unpruned.net, self.groups, self.judge, self.map_file, self.made_for)

    def fit(self, known: PruneMap, limits: Sequence[Limit], weights: Mapping[str, float]) -> Fit:
        """The channels that the map advises under counted limits."""
        return by_map(self.groups, known, weights, self.multiple, partial(self.shares, limits))


def open_pruning(run: Path, design: str = "best") -> Pruning:
    """A kept design of a run, ready to be pruned; raises `UserError` where the run or its data are not what they were.

    Raises it too where a task has no label among the calibration images, which decide.
    """
    folder, config = RunFolder(run), RunFolder(run).config()
    unpruned = folder.load(design)
    source = open_source(config["data"], unpruned.design.space.size)
    if source.identity != config["data_identity"]:
        raise UserError(f"data {config['data']!r} has changed since run {run} was made: search again")
    judge, multiple = Judge(source), find_target(config["target"]).traits.channel_multiple
    judge.check_labels()
    made_for = {
        "design": unpruned.design.key,
        "weights_sha256": sha256(run / "designs" / design / "weights.safetensors"),
        "data_identity": source.identity,
        "images": [RECALIBRATION_IMAGES, JUDGED_IMAGES],
        "multiple": multiple,
    }
    groups = net_groups(unpruned.net)
    return Pruning(unpruned, judge, groups, multiple, run / "designs" / design / MAP_FILE, made_for)


def prune(request: PruneRequest, report: Report = lambda event: None) -> Result:
    """Remove channels of a run's design until it keeps the budgets, and write the result as a run of its own.

    Channels go by groups of the dependency graph of all heads at once; a group that one task alone reaches is judged by
    that task alone (PAGCP, Ye et al. 2023). Decisions are made on calibration images, the scores of the result on test
    images; its baseline is the unpruned design, which teaches it where `fine_tune` trains it further. `resume` goes on
    from what was tried before. Raises `UserError` for budgets that cannot be met, saying what can; for a floor that the
    design breaks unpruned; and where a task has no label among the calibration images.
    """
    started = time.monotonic()
    folder, before = RunFolder(request.out), RunFolder(request.run).config()
    if not request.resume:
        folder.check({}, resume=False)
    pruning = open_pruning(request.run, request.design)
    asked = {"floors": list(request.floors), "fast": request.fast, "precisions": request.precisions}
    source = pruning.judge.source
    limits, floors = _asked(request, pruning, before["target"])
    _prepare(source, report)
    floors = _rest_of(floors, request, pruning)
    config = {key: value for key, value in before.items() if key not in ("schema", "tuned", "pruned")} | {
        "strategy": "prune",
        "budgets": list(request.budgets),
        "floors": [f"{floor.task}={100 * floor.max_drop:.4f}%" for floor in floors],
        "pruned": {**asked, **pruning.made_for},
    }
    folder.check(config, request.resume)
    if (request.out / RESULT_FILE).is_file():
        return read_result(request.out)
    evaluator, problem = _scoring(pruning, source, before, limits, floors)
    _check_reach(pruning, evaluator, problem.limits)
    folder.create(config)
    trials = Trials(request.out / "trials.jsonl")
    known, fit = _decide(request, pruning, evaluator, problem, trials, report)
    narrow, design = pruning.net(known, fit.kept), pruning.design(fit.kept)
    _write_pruning(request, pruning, known, fit, narrow)
    finalist = _finalist(request, problem, _of(evaluator, design, narrow), design)
    tried = len(trials) or sum(len(curve.rises) for curve in known.curves.values())
    said = Asked(request.command, before["seed"], "prune", request.budgets, tried, started)
    return conclude(folder, said, evaluator, problem, pruning.unpruned, [finalist], _tell(report, "score"))


def _asked(request: PruneRequest, pruning: Pruning, target: str) -> tuple[tuple[Limit, ...], tuple[Floor, ...]]:
    """The limits of what is counted, those of what is timed at their face value, and the floors."""
    design, names = pruning.unpruned.design, [task.name for task in pruning.judge.source.tasks]
    if not request.budgets:
        raise UserError("no budget was given: say what the net may take, for example --budget 40%FLOPs")
    limits = []
    for budget in map(parse_budget, request.budgets):
        if budget.task is not None and budget.task not in names:
            raise unknown_name(f"task in budget {budget.text!r}:", budget.task, names)
        here = budget.device in (None, "host") and budget.runtime in (None, target)
        if budget.quantity == "energy_mj" or not here:
            raise UserError(
                f"budget {budget.text!r}: pruning counts FLOPs, parameters and bytes, and times engines of {target} on "
                "this host: give one of these"
            )
        limit = Limit(budget, budget.value)
        limits.append(Limit(budget, budget.limit(limit.count(design))) if limit.exact else limit)
    return tuple(limits), tuple(parse_floor(text, names) for text in request.floors)


def _rest_of(floors: Sequence[Floor], request: PruneRequest, pruning: Pruning) -> tuple[Floor, ...]:
    """What the unpruned design has left of each floor, which refers to the run's baseline; judged by calibration.

    Raises `UserError` for a floor that it breaks already.
    """
    if not floors or request.design == "baseline":
        return tuple(floors)
    source, found = pruning.judge.source, []
    scores = pruning.judge.scores(pruning.unpruned.net)
    baseline = pruning.judge.scores(RunFolder(request.run).load("baseline").net)
    for floor in floors:
        task = next(task for task in source.tasks if task.name == floor.task)
        change = relative_change(task, scores[task.name], baseline[task.name])
        rest = 1 - (1 - floor.max_drop) / (1 + change)
        if rest <= 0:
            raise UserError(
                f"floor {floor.task}={100 * floor.max_drop:g}%: design {request.design} has lost {-100 * change:.2f} % "
                f"of {floor.task} against its run's baseline before anything is pruned: raise the floor, or prune "
                "another --design"
            )
        found.append(Floor(floor.task, rest))
    return tuple(found)


def _scoring(
    pruning: Pruning, source: Source, config: Mapping[str, Any], limits: Sequence[Limit], floors: tuple[Floor, ...]
) -> tuple[Evaluator, Problem]:
    """What scores and times nets, and the problem, its limits in ms resolved and the unpruned net its baseline."""
    target, base = find_target(config["target"]), pruning.unpruned
    budgets = [limit.budget for limit in limits]
    executes = target.traits.executes
    if timed := [budget for budget in budgets if budget.quantity == "latency_ms" and not executes]:
        raise UserError(f"budget {timed[0].text!r}: target {config['target']} does not run on this host; give FLOPs")
    supernet = _OneDesign(base.design, base.net, "").supernet()
    evaluator = Evaluator(supernet, source, target, timed_scopes(budgets), executes)
    evaluator.check_labels()
    ms = evaluator.time(base) if any(not limit.exact for limit in limits) else {}
    resolved = [limit if limit.exact else replace(limit, value=_ms_limit(limit.budget, ms)) for limit in limits]
    baseline = evaluator.simulated(base)
    problem = Problem(base.design.space, tuple(resolved), floors, config["preference"], baseline, executes)
    return evaluator, problem


def _ms_limit(budget: Budget, unpruned_ms: Mapping[str, float]) -> float:
    return budget.limit(unpruned_ms[budget.task or ""])


def _check_reach(pruning: Pruning, evaluator: Evaluator, limits: Sequence[Limit]) -> None:
    """`UserError` for a limit that the net with the fewest channels does not keep, saying what it takes."""
    kept = deepest(pruning.groups, pruning.multiple)
    least, ms = pruning.design(kept), dict[str, float]()
    if any(not limit.exact for limit in limits):
        ms = _timed(pruning, evaluator, pruning.orders(), kept)
    for limit in limits:
        takes = limit.measured(Evaluation(least, {}, ms))
        if takes > limit.value:
            allowed, reached = (format_quantity(limit.budget.quantity, value) for value in (limit.value, takes))
            raise UserError(
                f"budget {limit.budget.text!r} allows {allowed}, but pruning reaches {reached} at the least: "
                "raise the budget, or prune a smaller design"
            )


def _timed(pruning: Pruning, evaluator: Evaluator, known: PruneMap, kept: Kept) -> dict[str, float]:
    """Latency in ms of the engine of the net with `kept` channels."""
    design = pruning.design(kept)
    own = _of(evaluator, design, pruning.net(known, kept))
    return own.time(own.candidate(design))


def _decide(
    request: PruneRequest,
    pruning: Pruning,
    evaluator: Evaluator,
    problem: Problem,
    trials: Trials,
    report: Report,
) -> tuple[PruneMap, Fit]:
    """How many channels each group keeps, and the map that says which."""
    timed = [limit for limit in problem.limits if not limit.exact]
    known = pruning.map(_tell(report, "map")) if request.fast or timed else pruning.orders()
    weights = _weights(problem)
    limits = [limit for limit in problem.limits if limit.exact]
    if timed:
        limits.append(_counted(pruning, evaluator, known, limits, timed, weights, report))
    if request.fast:
        return known, pruning.fit(known, limits, weights)

    def judge(kept: Kept, group: Group, allowed: Mapping[str, float]) -> Verdict:
        key = f"{pruning.design(kept).key}/{','.join(group.tasks)}"
        verdict = trials.known(key, allowed)
        if verdict is None:
            verdict = pruning.judge.losses(pruning.net(known, kept), group.tasks, allowed)
            trials.keep(key, verdict)
        return verdict

    allowance = {task: 1 / weight for task, weight in weights.items()}
    shares, tell = partial(pruning.shares, limits), _tell(report, "trial")
    return known, by_trial(pruning.groups, judge, known.base, allowance, pruning.multiple, shares, tell)


def _weights(problem: Problem) -> dict[str, float]:
    """How much a relative rise of each task's loss counts: more for a preferred task, and for one with a low floor."""
    floors = {floor.task: floor.max_drop for floor in problem.floors}
    preference = {task.name: max(0.01, problem.preference[task.name]) for task in problem.space.tasks}
    return {t: USUAL_FLOOR * each / max(0.001, floors.get(t, USUAL_FLOOR)) for t, each in preference.items()}


def _counted(
    pruning: Pruning,
    evaluator: Evaluator,
    known: PruneMap,
    limits: Sequence[Limit],
    timed: Sequence[Limit],
    weights: Mapping[str, float],
    report: Report,
) -> Limit:
    """The largest limit in FLOPs, by bisection, at which the engine of the net that the map advises is in time."""
    whole = float(pruning.unpruned.design.cost().flops)
    least = pruning.design(deepest(pruning.groups, pruning.multiple)).cost().flops

    def at_most(flops: float) -> Limit:
        return Limit(Budget("flops", flops, f"{flops:.0f}FLOPs"), flops)

    def in_time(flops: float) -> bool:
        kept = pruning.fit(known, [*limits, at_most(flops)], weights).kept
        ms = _timed(pruning, evaluator, known, kept)
        return all(ms[limit.budget.task or ""] <= limit.value for limit in timed)

    low, high, tell = float(least), whole, _tell(report, "latency")
    for number in range(LATENCY_ROUNDS):
        tell(number, LATENCY_ROUNDS, format_quantity("flops", low))
        middle = (low + high) / 2
        low, high = (middle, high) if in_time(middle) else (low, middle)
    tell(LATENCY_ROUNDS, LATENCY_ROUNDS, format_quantity("flops", low))
    return at_most(low)


def _of(evaluator: Evaluator, design: Design, net: MultiTaskNet) -> Evaluator:
    """What scores this one net."""
    return replace(evaluator, supernet=_OneDesign(design, net, "").supernet())


def _finalist(request: PruneRequest, problem: Problem, evaluator: Evaluator, design: Design) -> Finalist:
    """The pruned net in its own precision, or in the one that suits it best."""
    if request.precisions:
        return choose(problem, fast_enough(problem, finalists(problem, evaluator, design)))
    candidate = evaluator.candidate(design)
    latency_ms = evaluator.time(candidate) if evaluator.executes else {}
    return Finalist(candidate, Evaluation(design, evaluator.simulated(candidate), latency_ms), 1.0)


def _write_pruning(request: PruneRequest, pruning: Pruning, known: PruneMap, fit: Fit, narrow: MultiTaskNet) -> None:
    """Keep what was decided: channels of every group before and after, and the task that blocked it."""
    after = pruning.judge.losses(narrow, list(known.base)).losses
    rows = [
        {
            "group": group.name,
            "convolutions": list(group.convolutions),
            "tasks": list(group.tasks),
            "parts": len(group.parts),
            "before": group.size,
            "after": fit.kept[group.name],
            "blocked_by": fit.blocked.get(group.name),
        }
        for group in pruning.groups
    ]
    losses = {task: {"before": loss, "after": after[task]} for task, loss in known.base.items()}
    mode = "fast" if request.fast else "sequential"
    content = {"schema": SCHEMA, "mode": mode, "tolerance": fit.tolerance, "calibration_losses": losses}
    write_json(request.out / PRUNING_FILE, {**content, "groups": rows})


def _tell(report: Report, stage: str) -> Callable[[int, int, str], None]:
    return lambda done, total, text: report(SearchEvent(stage, done, total, text))
