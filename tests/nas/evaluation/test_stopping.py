from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgemtl.nas.evaluation.stopping import Audit, ByImage, Watch, image_order, watch_floors
from edgemtl.tasks import make_task, parse_floor, ratio_of_counts

DEPTH, KIND = make_task("depth", "depth"), make_task("kind", "classification", 2)
SEMSEG, EDGES = make_task("semseg", "segmentation", 3), make_task("edges", "edges")
TASKS = (DEPTH, KIND, SEMSEG, EDGES)
RMSE = parse_floor("depth<1", TASKS)
LABELS = {"depth": [10] * 64, "kind": [1] * 64}
Array = NDArray[np.float64]
Scores = Mapping[str, Sequence[Mapping[str, float]]]


def by_image(scores: Mapping[str, Sequence[Mapping[str, float]]], **counts: Sequence[Array]) -> ByImage:
    return ByImage(scores, counts)


def scores_of(rmse: Sequence[float], right: Sequence[int]) -> Scores:
    return {"depth": [{"rmse": value} for value in rmse], "kind": [{"accuracy": float(value)} for value in right]}


def total(scores: Scores) -> dict[str, dict[str, float]]:
    """Metrics over all images, which have equally many labels."""
    rmse = math.sqrt(float(np.mean([score["rmse"] ** 2 for score in scores["depth"]])))
    accuracy = float(np.mean([score["accuracy"] for score in scores["kind"]]))
    return {"depth": {"rmse": rmse}, "kind": {"accuracy": accuracy}, "semseg": {"miou": 0.5}}


def images_seen(watch: Watch, scores: Scores, key: str = "a") -> tuple[int, Audit]:
    """How many images it takes until a floor is lost, all where none is."""
    audit, order = Audit(watch), image_order(key, watch.images)
    for count, image in enumerate(order, 1):
        audit.add([image], by_image({task: [each[image]] for task, each in scores.items()}))
        if audit.broken:
            return count, audit
    return watch.images, audit


RNG = np.random.default_rng(0)
BASE_RMSE, BASE_RIGHT = RNG.lognormal(0, 0.5, 64), (RNG.random(64) < 0.9).astype(int)
BASE = scores_of(BASE_RMSE.tolist(), BASE_RIGHT.tolist())


def watch(*floors: str) -> Watch:
    made = watch_floors([parse_floor(text, TASKS) for text in floors], total(BASE), by_image(BASE), LABELS)
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
    scores, labels = {"depth": [{}, *BASE["depth"][1:]]}, {"depth": [0, *LABELS["depth"][1:]]}
    observed = watch_floors([RMSE], total(BASE), by_image(scores), labels)
    assert observed is not None
    audit = Audit(observed)
    audit.add([0], by_image({"depth": [{}]}))
    assert audit.broken is None


IMAGES = 64


def counts_of(rates: Sequence[float], seed: int = 0) -> list[Array]:
    """Right, false and missed labels of each image, of classes (thresholds) with these rates of missed ones."""
    rng, labels = np.random.default_rng(seed), np.random.default_rng(9).integers(20, 200, IMAGES)
    missed = [rng.binomial(labels, np.clip(rng.normal(rate, 0.05, IMAGES), 0, 1)) for rate in rates]
    return list(np.stack([np.stack([labels - each, each, each], 1) for each in missed], 1).astype(float))


@pytest.mark.parametrize("text", ["semseg=5%", "edges=5%"])
def test_floors_on_ratios_of_counts_stop_the_worse_the_sooner(text: str) -> None:
    floor = parse_floor(text, TASKS)
    name, metric = floor.task.name, floor.metric
    rates = (0.1, 0.2, 0.3) if floor.task is SEMSEG else (0.6, 0.2, 0.6)
    base = counts_of(rates)
    metrics = {name: {metric.name: ratio_of_counts(metric, sum(base))}}
    observed = watch_floors([floor], metrics, by_image({}, **{name: base}), {name: [1] * IMAGES})
    assert observed is not None
    seen = []
    for factor in (0.9, 1.0, 2.0, 3.0):
        audit, counts = Audit(observed), counts_of([min(1.0, factor * rate) for rate in rates], seed=1)
        order = image_order(text, IMAGES)
        steps = (
            (count, audit.add([image], by_image({}, **{name: [counts[image]]}))) for count, image in enumerate(order, 1)
        )
        seen.append(next((count for count, _ in steps if audit.broken), IMAGES))
        if audit.broken:
            assert audit.completed(metrics)[name][metric.name] < floor.worst(metrics)
        value = ratio_of_counts(metric, sum(counts))
        assert (value < floor.worst(metrics)) == (factor > 1)
    assert seen[:2] == [IMAGES, IMAGES], "these keep the floor"
    assert IMAGES / 2 >= seen[2] > seen[3], "half of the images are saved, and more"


def test_a_best_threshold_that_keeps_the_floor_is_enough() -> None:
    floor = parse_floor("edges>0.5", TASKS)
    base = counts_of((0.2, 0.2))
    observed = watch_floors([floor], {"edges": {"ods_f": 0.8}}, by_image({}, edges=base), {"edges": [1] * IMAGES})
    assert observed is not None
    audit, counts = Audit(observed), counts_of((0.9, 0.4), seed=1)
    for image in range(IMAGES):
        audit.add([image], by_image({}, edges=[counts[image]]))
    assert audit.broken is None


def test_a_floor_without_any_true_label_is_not_watched() -> None:
    floors = [parse_floor(text, TASKS) for text in ("semseg>0.5", "edges>0.5", "depth<1")]
    metrics = {**total(BASE), "edges": {"ods_f": 0.6}}
    labels = {**LABELS, "semseg": [1] * IMAGES, "edges": [1] * IMAGES}
    none = [np.array([[0.0, 3.0, 0.0]])] * IMAGES
    part = by_image(BASE, semseg=counts_of((0.1, 0.2, 0.3)), edges=none)
    observed = watch_floors(floors, metrics, part, labels)
    assert observed is not None and observed.images == IMAGES
    assert [each.floor.text for each in observed.floors] == ["semseg.miou>0.5", "depth.rmse<1"]


def test_a_design_has_one_order_and_others_have_another() -> None:
    assert sorted(image_order("a", 30)) == list(range(30))
    assert image_order("a", 30) == image_order("a", 30) != image_order("b", 30)
