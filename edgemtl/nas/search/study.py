"""The study of a search: where its evaluations are kept, and whether they are all there."""

from __future__ import annotations

import hashlib
import json

import optuna

from edgemtl.nas.evaluation import Evaluation, evaluation_of, finished, open_study
from edgemtl.nas.runs import RunFolder
from edgemtl.nas.search.setup import Setup
from edgemtl.results import RESULT_FILE

__all__ = ["evaluations_in", "has_ended", "mark_refined", "study_of"]

_REFINED = "evaluations_refined"


def study_of(setup: Setup) -> optuna.Study:
    """The run's study; in a shared storage its name identifies the request, so that two searches never mix."""
    out, storage = setup.request.out, setup.request.storage
    digest = hashlib.sha256(json.dumps(setup.config.as_json(), sort_keys=True).encode()).hexdigest()[:12]
    return open_study(f"{out.name}-{digest}" if storage else "search", RunFolder(out).journal, storage)


def evaluations_in(study: optuna.Study, setup: Setup) -> list[Evaluation]:
    """Every evaluated design once, in the order of evaluation; `UserError` where a trial is damaged."""
    evaluations = [evaluation_of(trial, setup.space) for trial in finished(study)]
    return list({each.design.key: each for each in evaluations}.values())


def has_ended(setup: Setup) -> bool:
    """Whether the existing result covers every requested evaluation."""
    if not (setup.request.out / RESULT_FILE).is_file():
        return False
    study = study_of(setup)
    refined = study.user_attrs.get(_REFINED) == len(evaluations_in(study, setup))
    return len(finished(study)) >= setup.request.evaluations and refined


def mark_refined(study: optuna.Study, evaluations: int) -> None:
    """Keep how many evaluations the result speaks of."""
    study.set_user_attr(_REFINED, evaluations)
