from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemtl.nas.evaluation.stopping import Audit, Bets, ImageScores, Watch, WatchedFloor, image_order, watch_floors
from edgemtl.tasks import make_task, parse_floor

DEPTH, KIND = make_task("depth", "depth"), make_task("kind", "classification", 2)
TASKS = (DEPTH, KIND, make_task("semseg", "segmentation", 3))
RMSE = parse_floor("depth<1", TASKS)
LABELS = {"depth": [10] * 64, "kind": [1] * 64}
amounts = st.integers(0, 6).map(float)


def watched(errors: Sequence[float], expected: Sequence[float]) -> WatchedFloor:
    """The floor is just kept by these sums of squares, one an image."""
    return WatchedFloor(RMSE, np.ones(len(errors)), np.array(expected, float), float(sum(errors)))


def wealth_over(errors: Sequence[float], bets: Bets, order: Sequence[int]) -> list[float]:
    """Wealth after each image of an order."""
    series = []
    for image in order:
        bets.add(image, {"rmse": math.sqrt(errors[image])})
        series.append(bets.wealth)
    return series


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(amounts, st.integers(1, 5)), min_size=2, max_size=5).filter(lambda e: any(x for x, _ in e)))
def test_a_floor_that_is_kept_is_lost_no_more_often_than_the_bound_says(pairs: list[tuple[float, int]]) -> None:
    """Exactly, over all orders of a few images: nobody gains on average, and great wealth is as rare as Ville says."""
    errors, expected = [error for error, _ in pairs], [share for _, share in pairs]
    runs = [
        wealth_over(errors, Bets(watched(errors, expected), 0.01), order)
        for order in itertools.permutations(range(len(pairs)))
    ]
    for moment in zip(*runs, strict=True):
        assert np.mean(moment) <= 1 + 1e-6
    for chance in (0.5, 0.25, 0.1, 0.02):
        assert np.mean([max(run) >= 1 / chance - 1e-9 for run in runs]) <= chance


def scores_of(rmse: Sequence[float], right: Sequence[int]) -> ImageScores:
    return {"depth": [{"rmse": value} for value in rmse], "kind": [{"accuracy": float(value)} for value in right]}


def total(scores: ImageScores) -> dict[str, dict[str, float]]:
    """Metrics over all images, which have equally many labels."""
    rmse = math.sqrt(float(np.mean([score["rmse"] ** 2 for score in scores["depth"]])))
    accuracy = float(np.mean([score["accuracy"] for score in scores["kind"]]))
    return {"depth": {"rmse": rmse}, "kind": {"accuracy": accuracy}, "semseg": {"miou": 0.5}}


def images_seen(watch: Watch, scores: ImageScores, key: str = "a") -> tuple[int, Audit]:
    """How many images it takes until a floor is lost, all where none is."""
    audit, order = Audit(watch), image_order(key, watch.images)
    for count, image in enumerate(order, 1):
        audit.add([image], {task: [each[image]] for task, each in scores.items()})
        if audit.broken:
            return count, audit
    return watch.images, audit


RNG = np.random.default_rng(0)
BASE_RMSE, BASE_RIGHT = RNG.lognormal(0, 0.5, 64), (RNG.random(64) < 0.9).astype(int)
BASE = scores_of(BASE_RMSE.tolist(), BASE_RIGHT.tolist())


def watch(*floors: str) -> Watch:
    made = watch_floors([parse_floor(text, TASKS) for text in floors], total(BASE), BASE, LABELS)
    assert made is not None
    return made


def test_the_worse_a_candidate_the_sooner_it_is_stopped() -> None:
    seen = [images_seen(watch("depth=2%"), scores_of((f * BASE_RMSE).tolist(), BASE_RIGHT.tolist()))[0] for f in
            (0.9, 1.0, 1.019, 1.2, 1.5, 3.0)]  # fmt: skip
    assert seen[:3] == [64, 64, 64], "these keep the floor"
    assert seen[3] > seen[4] > seen[5]
    assert seen[4] <= 32 and seen[5] <= 12, "half of the images are saved, and most"


def test_a_share_of_right_answers_is_watched_too() -> None:
    wrong = scores_of(BASE_RMSE.tolist(), (RNG.random(64) < 0.2).astype(int).tolist())
    seen, audit = images_seen(watch("kind>0.8"), wrong)
    assert seen < 32
    assert audit.broken and audit.broken.text == "kind.accuracy>0.8"
    assert images_seen(watch("kind>0.75"), BASE)[0] == 64, "it has 0.766"


@settings(deadline=None, max_examples=30)
@given(st.floats(1.0, 4.0), st.floats(0, 0.6), st.integers(0, 1000), st.sampled_from(["depth=2%", "depth<1.2"]))
def test_what_is_recorded_of_a_stopped_candidate_misses_its_floor(
    factor: float, noise: float, seed: int, floor: str
) -> None:
    rng = np.random.default_rng(seed)
    rmse = factor * BASE_RMSE * rng.lognormal(0, noise, 64)
    observed = watch(floor)
    seen, audit = images_seen(observed, scores_of(rmse.tolist(), BASE_RIGHT.tolist()), str(seed))
    recorded = audit.completed({"depth": {"rmse": 0.0, "abs_rel": 0.1}, "kind": {"accuracy": 0.5}})
    assert recorded["depth"]["abs_rel"] == 0.1 and recorded["kind"] == {"accuracy": 0.5}
    parsed = observed.floors[0].floor
    if audit.broken:
        assert parsed.shortfall(parsed.value({**total(BASE), **recorded}, total(BASE))) > 0
    else:
        truth = math.sqrt(float(np.mean(rmse**2)))
        assert seen == 64 and recorded["depth"]["rmse"] == pytest.approx(truth, rel=1e-9)


def test_a_score_that_is_not_finite_loses_at_once() -> None:
    broken = scores_of([math.nan] * 64, BASE_RIGHT.tolist())
    seen, audit = images_seen(watch("depth=2%"), broken)
    assert seen == 1 and audit.broken


def test_images_without_a_label_say_nothing() -> None:
    observed = watch_floors(
        [RMSE], total(BASE), {"depth": [{}, *BASE["depth"][1:]]}, {"depth": [0, *LABELS["depth"][1:]]}
    )
    assert observed is not None
    audit = Audit(observed)
    audit.add([0], {"depth": [{}]})
    assert audit.broken is None


def test_metrics_that_are_no_means_are_not_watched() -> None:
    floors = [parse_floor(text, TASKS) for text in ("semseg>0.5", "semseg=2%")]
    assert watch_floors(floors, total(BASE), BASE, LABELS) is None
    both = watch_floors([*floors, RMSE], total(BASE), BASE, LABELS)
    assert both and [each.floor.text for each in both.floors] == ["depth.rmse<1"]


def test_a_design_has_one_order_and_others_have_another() -> None:
    assert sorted(image_order("a", 30)) == list(range(30))
    assert image_order("a", 30) == image_order("a", 30) != image_order("b", 30)
