from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest

from edgemtl.nas.evaluation.finalists import pick_architectures
from edgemtl.nas.evaluation.problem import Evaluation, Problem
from edgemtl.nas.evaluation.sensitivity import measure_sensitivity
from edgemtl.nas.evaluation.shrinkage import shrinkage_estimate, standard_error
from edgemtl.spaces import Design, Space
from edgemtl.tasks import make_task
from edgemtl.testing.landscape import PAIR, evaluate, problem, space

NOISE = 0.05


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return space(tmp_path_factory.mktemp("pair"), PAIR)


@pytest.fixture(scope="module")
def mapped(pair: Space) -> Problem:
    found = measure_sensitivity(pair, lambda design: evaluate(design).metrics, evaluate(pair.largest()).metrics)
    return replace(problem(pair), sensitivity=found, noise=NOISE)


@pytest.fixture(scope="module")
def designs(pair: Space) -> list[Design]:
    rng = random.Random(1)
    return list({design.key: design for design in (pair.random(rng) for _ in range(60))}.values())


def noisy(task: Problem, design: Design, error: float) -> Evaluation:
    """An evaluation whose delta_m is off by `error`."""
    true = evaluate(design)
    base, metrics = task.baseline, true.metrics
    off: Mapping[str, Mapping[str, float]] = {
        "semseg": {"miou": metrics["semseg"]["miou"] + error * base["semseg"]["miou"]},
        "depth": {"rmse": metrics["depth"]["rmse"] - error * base["depth"]["rmse"]},
    }
    return replace(true, metrics=off)


def test_the_standard_error_is_the_spread_of_drawn_accuracies() -> None:
    kinds = (make_task("kind", "classification", 4), make_task("depth", "depth"))
    images, share, rng = 250, 0.86, np.random.default_rng(0)
    baseline = {"kind": {"accuracy": share}, "depth": {"rmse": 1.0}}
    drawn = rng.binomial(images, share, 20_000) / images
    changes = 0.75 * (drawn - share) / share  # the preference's share of this task; depth does not move
    expected = standard_error(kinds, baseline, images, {"kind": 3.0, "depth": 1.0})
    assert expected == pytest.approx(float(changes.std()), rel=0.02)
    assert standard_error(kinds[1:], baseline, images, {"depth": 1.0}) == 0


def test_what_has_no_noise_is_believed_as_it_is(mapped: Problem, designs: list[Design]) -> None:
    evaluations = [noisy(mapped, design, 0.03) for design in designs]
    for certain in (replace(mapped, noise=0.0), replace(mapped, sensitivity=None)):
        estimate = shrinkage_estimate(certain, evaluations)
        assert estimate(evaluations[0]) == certain.delta_m(evaluations[0].metrics)
    assert shrinkage_estimate(mapped, evaluations[:5])(evaluations[0]) == mapped.delta_m(evaluations[0].metrics)


def test_belief_is_nearer_to_the_truth_than_the_measurement(mapped: Problem, designs: list[Design]) -> None:
    rng = random.Random(2)
    evaluations = [noisy(mapped, design, rng.gauss(0, NOISE)) for design in designs]
    estimate = shrinkage_estimate(mapped, evaluations)
    true = np.array([mapped.delta_m(evaluate(design).metrics) for design in designs])
    measured = np.array([mapped.delta_m(evaluation.metrics) for evaluation in evaluations])
    taken = np.array([estimate(evaluation) for evaluation in evaluations])
    assert ((taken - true) ** 2).mean() < 0.7 * ((measured - true) ** 2).mean()


def test_a_lucky_small_design_is_not_taken_for_the_best(mapped: Problem, pair: Space, designs: list[Design]) -> None:
    rng = random.Random(3)
    lucky = noisy(mapped, pair.smallest(), 0.5)
    evaluations = [lucky, *(noisy(mapped, design, rng.gauss(0, NOISE)) for design in designs)]
    plain = replace(mapped, noise=0.0)
    assert pick_architectures(plain, evaluations, 1) == [pair.smallest()]
    sceptic = replace(mapped, noise=1.0)  # nothing measured can be believed
    best = pick_architectures(sceptic, evaluations, 1, shrinkage_estimate(sceptic, evaluations))[0]
    assert best.cost().flops > 2 * pair.smallest().cost().flops
