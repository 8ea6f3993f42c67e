"""The end of a run: its designs scored on test images by their engines, kept, and written as `result.json`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from edgemtl.environment import environment
from edgemtl.nas.evaluation import (
    Candidate,
    Finalist,
    NetDesign,
    NetEvaluator,
    Prepared,
    Problem,
    Requirements,
)
from edgemtl.nas.runs.folder import RunFolder
from edgemtl.progress import Progress, Report, silent
from edgemtl.results import EarlyStops, Entry, FineTuning, LimitCheck, Origin, PathCost, Result, write_result
from edgemtl.signals import deferred
from edgemtl.tasks import delta_m
from edgemtl.units import preference_text

__all__ = ["Contender", "RunInfo", "finalize_run", "score_result"]


@dataclass(frozen=True)
class RunInfo:
    """The request as the result records it; `started` is the monotonic clock's time at its start.

    `early_stops` is the account of evaluations that floors stopped early, None where none could; `known_from` says in
    words what figures of the run are known from; `origin` is the run whose measurements serve again, if that is
    another one. `objectives` are names that a search was given.
    """

    command: str
    seed: int | None
    strategy: str
    budgets: tuple[str, ...]
    evaluations: int
    started: float
    early_stops: EarlyStops | None = None
    known_from: Mapping[str, str] = field(default_factory=dict)
    origin: Origin | None = None
    objectives: tuple[str, ...] = ()


@dataclass(frozen=True)
class Contender:
    """A net that a result tells of: its latency, and the limits that it was found to keep on validation images.

    `fine_tuning` tells of its own training after a search, if any.
    `latency_error` is that of a latency that was predicted; it is empty where it was measured.
    """

    name: str
    design: NetDesign
    prepared: Prepared
    latency_ms: Mapping[str, float]
    checks: tuple[LimitCheck, ...]
    fine_tuning: FineTuning | None = None
    latency_error: Mapping[str, float] = field(default_factory=dict)


def finalize_run(
    folder: RunFolder,
    info: RunInfo,
    evaluator: NetEvaluator,
    problem: Problem,
    base: Candidate,
    front: Sequence[Finalist],
    report: Report = silent,
    known_baseline: Entry | None = None,
) -> Result:
    """Score the front, the chosen design first, and the baseline; keep the nets and write the result.

    The baseline's scores and latency are those of `known_baseline`, of an earlier result, where that is given.
    """
    names = ["best", *(finalist.candidate.design.key for finalist in front[1:])]
    candidates = {name: finalist.candidate for name, finalist in zip(names, front, strict=True)}
    contenders = [
        Contender(
            name,
            each.candidate.design,
            each.candidate,
            each.evaluation.latency_ms,
            problem.checks(each.evaluation),
            each.fine_tuning,
            each.evaluation.latency_error,
        )
        for name, each in zip(names, front, strict=True)
    ]
    required = problem.requirements
    own = (base.design, base)
    result = score_result(info, problem.space.name, evaluator, required, own, contenders, report, known_baseline)
    with deferred():  # an older result and newer designs would not go together
        for name, candidate in {"baseline": base, **candidates}.items():
            folder.save(name, candidate)
        write_result(folder.path, result)
        folder.keep({"baseline", *candidates})
    return result


def score_result(
    info: RunInfo,
    space: str,
    evaluator: NetEvaluator,
    required: Requirements,
    base: tuple[NetDesign, Prepared],
    front: Sequence[Contender],
    report: Report = silent,
    known_baseline: Entry | None = None,
) -> Result:
    """The result of a run: the front, the chosen net first, and the baseline, scored on test images by their engines.

    Nothing here decides: what is feasible was found on validation images. Figures of a `known_baseline` are taken as
    they are.
    """
    samples, total = evaluator.test_samples, len(front) + 1
    report(Progress("score", 0, total, "baseline on test images"))
    known = known_baseline.metrics if known_baseline else None
    required = replace(required, baseline=known or evaluator.score(base[1], samples))
    latency_ms = _known_latency(known_baseline, evaluator.scopes) or evaluator.time(base[1])
    checks = required.checks(base[0], required.baseline, latency_ms)
    baseline = _entry(Contender("baseline", *base, latency_ms, checks), required.baseline, required, evaluator)
    entries = []
    for number, contender in enumerate(front, 1):
        report(Progress("score", number, total, f"{contender.name} on test images"))
        entries.append(_entry(contender, evaluator.score(contender.prepared, samples), required, evaluator))
    report(Progress("score", total, total))
    source = evaluator.source
    return Result(
        command=info.command,
        seed=info.seed,
        data={"name": source.name, "fingerprint": source.fingerprint, "scored_on": f"{len(samples)} test images"},
        space=space,
        strategy=info.strategy,
        budgets=info.budgets,
        feasible=all(check.kept for check in front[0].checks),
        best=entries[0],
        front=(*entries, baseline),
        evaluations=info.evaluations,
        seconds=time.monotonic() - info.started,
        environment=environment(),
        floors=tuple(floor.text for floor in required.floors),
        preference=dict(required.preference),
        early_stops=info.early_stops,
        known_from=dict(info.known_from),
        origin=info.origin,
        objectives=info.objectives,
    )


def _known_latency(baseline: Entry | None, scopes: Sequence[str]) -> dict[str, float]:
    """A known baseline's latency; empty where a single task's is asked for too, which no result holds."""
    return {"": baseline.latency_ms.value} if baseline and baseline.latency_ms and [*scopes] == [""] else {}


def _entry(
    contender: Contender, metrics: Mapping[str, Mapping[str, float]], required: Requirements, evaluator: NetEvaluator
) -> Entry:
    """A contender with its `metrics` on test images."""
    design, checks = contender.design, contender.checks
    cost = design.cost()
    paths = {task.name: design.cost([task.name]) for task in required.tasks}
    return Entry(
        design={**design.as_json()},
        flops=cost.flops,
        macs=cost.flops // 2,
        params=cost.params,
        bytes=cost.weight_bytes,
        latency_ms=evaluator.latency(contender.latency_ms.get(""), contender.latency_error.get("")),
        metrics={task: dict(scores) for task, scores in metrics.items()},
        delta_m=delta_m(required.tasks, metrics, required.baseline),
        paths={task: PathCost(flops=c.flops, params=c.params) for task, c in paths.items()},
        feasible=all(check.kept for check in checks),
        kind="baseline" if contender.name == "baseline" else "candidate",
        name=contender.name,
        weighted_delta_m=required.delta_m(metrics) if preference_text(required.preference) else None,
        limits=checks,
        fine_tuning=contender.fine_tuning,
        blocks=design.blocks,
    )
