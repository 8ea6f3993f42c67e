"""The end of a run: its designs scored on test images by their engines, kept, and written as `result.json`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from edgemtl.environment import environment
from edgemtl.nas.evaluation import Candidate, Evaluation, Evaluator, Finalist, Problem
from edgemtl.nas.runs.folder import RunFolder
from edgemtl.progress import Progress, Report, silent
from edgemtl.results import Entry, LimitCheck, PathCost, Result, write_result
from edgemtl.signals import deferred
from edgemtl.tasks import delta_m
from edgemtl.units import preference_text

__all__ = ["RunInfo", "finalize_run"]


@dataclass(frozen=True)
class RunInfo:
    """What the result says of the request: `started` is the monotonic clock's time at its beginning."""

    command: str
    seed: int
    strategy: str
    budgets: tuple[str, ...]
    evaluations: int
    started: float


def finalize_run(
    folder: RunFolder,
    info: RunInfo,
    evaluator: Evaluator,
    problem: Problem,
    base: Candidate,
    front: Sequence[Finalist],
    report: Report = silent,
) -> Result:
    """Score the front, the chosen design first, and the baseline; keep the nets and write the result.

    Nothing here decides: what is feasible was found on validation images.
    """
    samples = evaluator.test_samples
    total = len(front) + 1
    report(Progress("score", 0, total, "baseline on test images"))
    base_metrics = evaluator.score(base, samples)
    scored = replace(problem, baseline=base_metrics)
    baseline = Evaluation(base.design, base_metrics, evaluator.time(base) if evaluator.is_timed else {})
    entries, candidates = [], {"baseline": base}
    for number, finalist in enumerate(front):
        key = finalist.candidate.design.key
        report(Progress("score", number + 1, total, f"{key} on test images"))
        name = key if number else "best"
        metrics = evaluator.score(finalist.candidate, samples)
        candidates[name] = finalist.candidate
        evaluation = Evaluation(finalist.candidate.design, metrics, finalist.evaluation.latency_ms)
        checks = problem.checks(finalist.evaluation)
        entries.append(_entry(scored, evaluation, name, "candidate", checks, evaluator))
    report(Progress("score", total, total))
    source = evaluator.source
    result = Result(
        command=info.command,
        seed=info.seed,
        data={"name": source.name, "fingerprint": source.fingerprint, "scored_on": f"{len(samples)} test images"},
        space=problem.space.name,
        strategy=info.strategy,
        budgets=info.budgets,
        feasible=problem.feasible(front[0].evaluation),
        best=entries[0],
        front=(*entries, _entry(scored, baseline, "baseline", "baseline", scored.checks(baseline), evaluator)),
        evaluations=info.evaluations,
        seconds=time.monotonic() - info.started,
        environment=environment(),
        floors=tuple(floor.text for floor in problem.floors),
        preference=dict(problem.preference),
    )
    with deferred():  # an older result and newer designs would not go together
        for name, candidate in candidates.items():
            folder.save(name, candidate)
        write_result(folder.path, result)
        folder.keep(candidates)
    return result


def _entry(
    problem: Problem,
    evaluation: Evaluation,
    name: str,
    kind: Literal["baseline", "candidate"],
    limits: tuple[LimitCheck, ...],
    evaluator: Evaluator,
) -> Entry:
    design = evaluation.design
    cost = design.cost()
    paths = {task.name: design.cost([task.name]) for task in problem.space.tasks}
    return Entry(
        design={**design.as_json()},
        flops=cost.flops,
        macs=cost.flops // 2,
        params=cost.params,
        bytes=cost.weight_bytes,
        latency_ms=evaluator.latency(evaluation.latency_ms.get("")),
        metrics={task: dict(scores) for task, scores in evaluation.metrics.items()},
        delta_m=delta_m(problem.space.tasks, evaluation.metrics, problem.baseline),
        paths={task: PathCost(flops=c.flops, params=c.params) for task, c in paths.items()},
        feasible=all(check.kept for check in limits),
        kind=kind,
        name=name,
        weighted_delta_m=problem.delta_m(evaluation.metrics) if preference_text(problem.preference) else None,
        limits=limits,
        blocks=design.blocks,
    )
