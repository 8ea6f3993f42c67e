"""The loop of a search: designs proposed by the study's sampler are evaluated until there are enough."""

from __future__ import annotations

import socket
import time
from contextlib import suppress

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from edgemtl.nas.evaluation import Evaluation, Evaluator, Problem, evaluation_of, finished, record
from edgemtl.nas.search.request import SearchRequest
from edgemtl.nas.search.workers import begin, busy_elsewhere, end_abandoned, end_silent, working
from edgemtl.progress import Progress, Report
from edgemtl.signals import deferred

__all__ = ["evaluate_all"]

_WAIT_SECONDS = 1.0


def evaluate_all(
    request: SearchRequest, problem: Problem, evaluator: Evaluator, study: optuna.Study, report: Report
) -> bool:
    """Run trials until `evaluations` are complete; whether Ctrl-C cut it short."""
    worker = f"{socket.gethostname()}:{request.out.resolve()}"
    end_abandoned(study, worker if request.storage else None)
    try:
        while (done := len(finished(study))) < request.evaluations:
            if done + busy_elsewhere(study, worker) >= request.evaluations:
                report(Progress("search", done, request.evaluations, "other workers are at the last designs"))
                time.sleep(_WAIT_SECONDS)
                end_silent(study)
                continue
            evaluation = _evaluate_next(problem, evaluator, study, worker)
            report(Progress("search", done + 1, request.evaluations, _news(problem, evaluation)))
    except KeyboardInterrupt:
        return True
    return False


def _evaluate_next(problem: Problem, evaluator: Evaluator, study: optuna.Study, worker: str) -> Evaluation:
    """The evaluation of the next design, kept in the study; Ctrl-C is held back while the study is written."""
    with deferred():
        trial = begin(study, problem.space, worker)
    try:
        design = problem.space.design(trial.params)
        same_design = [each for each in finished(study) if each.user_attrs.get("key") == design.key]
        with working(study, trial):
            if same_design:
                evaluation = evaluation_of(same_design[0], problem.space)
            else:
                evaluation = evaluator.evaluate(design, problem.watch, problem.predict_latency(design))
    except KeyboardInterrupt:  # so that other workers need not wait before they take it over
        study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        raise
    with deferred(), suppress(UpdateFinishedTrialError):  # after a long silence others have taken it over
        record(trial, evaluation)
        study.tell(trial, list(problem.objectives(evaluation)))
    return evaluation


def _news(problem: Problem, evaluation: Evaluation) -> str:
    minus_delta, second = problem.objectives(evaluation)
    cost = f"{second:.2f} ms" if problem.measures_latency else f"{second / 1e9:.2f} GFLOPs"
    if evaluation.latency_error:
        cost += f" predicted (error {100 * evaluation.latency_error['']:.1f} %)"
    broken = [check.name for check in problem.checks(evaluation) if not check.kept]
    verdict = f", breaks {' and '.join(broken)}" if broken else ""
    early = f" (stopped after {each.images} of {each.total} images)" if (each := evaluation.stopped) else ""
    return f"delta_m {-100 * minus_delta:+.1f} %, {cost}{verdict}{early}"
