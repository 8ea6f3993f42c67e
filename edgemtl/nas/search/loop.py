"""The loop of a search: designs proposed by the study's sampler are evaluated until there are enough."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from edgemtl.nas.evaluation import (
    Evaluation,
    LatencyPrediction,
    Problem,
    Turns,
    Watch,
    evaluation_of,
    finished,
    free_position,
    position_of,
    record,
)
from edgemtl.nas.search.strategies import evaluated_before
from edgemtl.nas.search.workers import SilenceWatch, begin, working
from edgemtl.progress import Progress, Report
from edgemtl.signals import deferred
from edgemtl.spaces import Design
from edgemtl.units import format_flops

__all__ = ["DesignEvaluator", "Worker", "evaluate_all", "worker_name"]

_WAIT_SECONDS = 0.5


class DesignEvaluator(Protocol):
    """Evaluates designs of a space, whatever nets they mean: an `Evaluator` of a supernet is one."""

    @property
    def turns(self) -> Turns:
        """Turns with the other processes of this machine."""
        ...

    @property
    def estimate(self) -> object | None:
        """The origin of latencies that are estimated; None where engines are timed."""
        ...

    def evaluate(self, design: Design, watch: Watch | None, predicted: LatencyPrediction | None, /) -> Evaluation:
        """Metrics of a design on the images that decide, and its latency; `watch` may stop its scoring early."""
        ...


@dataclass(frozen=True)
class Worker:
    """Who evaluates: its name, whether others may work at the same study, and a check that it makes now and then."""

    name: str
    shares: bool
    check: Callable[[], None] = lambda: None


def worker_name(run: Path) -> str:
    """The name of the process that owns a run's folder, the same after it was killed."""
    return f"{socket.gethostname()}:{run.resolve()}"


def evaluate_all(
    evaluations: int, problem: Problem, evaluator: DesignEvaluator, study: optuna.Study, worker: Worker, report: Report
) -> bool:
    """Run trials until the first `evaluations` positions are evaluated; whether Ctrl-C cut it short.

    A position is proposed for once those that its sampler follows from are evaluated, by whomever: so it is what one
    worker alone would propose.
    """
    watch = SilenceWatch()
    try:
        while (done := _evaluated(study, evaluations)) < evaluations:
            may_begin = partial(_may_begin, study, evaluations)
            evaluation = None
            if may_begin(free_position(study)):
                evaluation = _evaluate_next(may_begin, problem, evaluator, study, worker)
            if evaluation is None:
                report(Progress("search", done, evaluations, "other workers are at the designs that come first"))
                time.sleep(_WAIT_SECONDS)
            else:
                news = _news(problem, evaluation, evaluator.estimate is not None)
                report(Progress("search", _evaluated(study, evaluations), evaluations, news))
            watch.end_silent(study)
            worker.check()
    except KeyboardInterrupt:
        return True
    return False


def _evaluated(study: optuna.Study, evaluations: int) -> int:
    """How many of the first positions are evaluated."""
    return sum(position_of(trial) < evaluations for trial in finished(study))


def _may_begin(study: optuna.Study, evaluations: int, position: int) -> bool:
    """Whether a position is wanted, and what its proposal follows from is there."""
    first = evaluated_before(study.sampler, position)
    return position < evaluations and _evaluated(study, first) == first


def _evaluate_next(
    may_begin: Callable[[int], bool], problem: Problem, evaluator: DesignEvaluator, study: optuna.Study, worker: Worker
) -> Evaluation | None:
    """The evaluation of the next design, kept in the study; Ctrl-C is held back while the study is written.

    None where other workers have all that may begin.
    """
    with deferred(), evaluator.turns.among_others():
        trial = begin(study, problem.space, worker.name, may_begin)
    if trial is None:
        return None
    try:
        design = problem.space.design(trial.params)
        same_design = [each for each in finished(study) if each.user_attrs.get("key") == design.key]
        with working(study, trial._trial_id) if worker.shares else nullcontext():
            if same_design:
                evaluation = evaluation_of(same_design[0], problem.space)
            else:
                evaluation = evaluator.evaluate(design, problem.watch, problem.predict_latency(design))
                evaluation = replace(evaluation, metrics=problem.requirements.finite(evaluation.metrics))
    except KeyboardInterrupt:  # so that other workers need not wait before they take it over
        study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        raise
    with deferred(), suppress(UpdateFinishedTrialError):  # after a long silence others have taken it over
        record(trial, evaluation)
        study.tell(trial, list(problem.objectives(evaluation)))
    return evaluation


def _news(problem: Problem, evaluation: Evaluation, estimated: bool) -> str:
    ms, flops = evaluation.latency_ms.get(""), evaluation.design.cost().flops
    cost = format_flops(flops).partition(" (")[0] if ms is None else f"{ms:.2f} ms{' estimated' if estimated else ''}"
    if evaluation.latency_error:
        cost += f" predicted (error {100 * evaluation.latency_error['']:.1f} %)"
    broken = [check.name for check in problem.checks(evaluation) if not check.kept]
    verdict = f", breaks {' and '.join(broken)}" if broken else ""
    if odd := problem.requirements.replaced(evaluation.metrics):
        verdict += f", {' and '.join(odd)} came out as no number, which counts as very bad"
    early = f" (stopped after {each.images} of {each.total} images)" if (each := evaluation.stopped) else ""
    return f"delta_m {100 * problem.delta_m(evaluation.metrics):+.1f} %, {cost}{verdict}{early}"
