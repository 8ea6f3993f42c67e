"""A search of designs of which some have scores that are no numbers, as where FP16 overflows."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from edgemtl.nas.evaluation import Evaluation, Turns, open_storage, open_study
from edgemtl.nas.search import Worker, evaluate_all, evaluations_in
from edgemtl.nas.search.strategies.random import RandomDesignSampler
from edgemtl.spaces import Design
from edgemtl.testing.landscape import PAIR, evaluate, problem, space


class Overflowing:
    """Stands where a search has its evaluator: the landscape's scores, those of one task not finite."""

    def __init__(self, score: float) -> None:
        self.turns, self.estimate, self._score = Turns(), None, score
        self.evaluated: list[str] = []

    def evaluate(self, design: Design, *unused: object) -> Evaluation:
        self.evaluated.append(design.key)
        assert self.evaluated.count(design.key) == 1, "it is evaluated again and again"
        evaluation = evaluate(design)
        return replace(evaluation, metrics={**evaluation.metrics, "depth": {"rmse": self._score}})


@pytest.mark.parametrize("score", [math.nan, math.inf])
def test_a_design_without_a_finite_score_is_evaluated_once_and_is_a_bad_one(tmp_path: Path, score: float) -> None:
    """A study keeps no trial whose objective is NaN: its position was free again, for the same design, for ever."""
    pair = space(tmp_path, PAIR)
    task, evaluator = problem(pair), Overflowing(score)
    study = open_study("search", open_storage(tmp_path / "study.journal"))
    study.sampler = RandomDesignSampler(task, 0, 4)
    news: list[str] = []
    heard = Worker("one", shares=False)
    assert not evaluate_all(3, task, evaluator, study, heard, lambda progress: news.append(progress.text))
    lines = [text for text in news if text]
    assert lines and all("depth.rmse came out as no number, which counts as very bad" in text for text in lines)
    measured = evaluations_in(study, pair)
    assert [each.design.key for each in measured] == evaluator.evaluated
    assert [task.changes(each.metrics)["depth"] for each in measured] == pytest.approx([-10.0] * 3)
    assert all(each.metrics["semseg"] == evaluate(each.design).metrics["semseg"] for each in measured)
