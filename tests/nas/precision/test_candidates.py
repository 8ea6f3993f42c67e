"""Candidates and choice, on figures made by hand."""

from __future__ import annotations

from typing import Any

import pytest
from refusals import refused

from edgemtl.nas.precision.candidates import gentlest_first, longest_kept, worth_rounding
from edgemtl.nas.precision.finalists import Candidate, Finalist, choose
from edgemtl.nas.precision.floors import Floors, judged_tasks, parse_floors
from edgemtl.nas.precision.scoring import by_agreement
from edgemtl.own import OwnPrecision
from edgemtl.tasks import make_task

TASKS = [make_task("pose", "regression", 4), make_task("face", "segmentation", 5)]
FLOORS = Floors(
    judged_tasks(TASKS, labelled=False),
    parse_floors(["face=10%"], TASKS, labelled=False),
    by_agreement({"pose": 1.0, "face": 1.0}),
)


def finalist(name: str, ms: float, lost: float, uniform: bool) -> Finalist:
    metrics = by_agreement({"pose": 1 - lost, "face": 1.0})
    nothing: Any = None  # a net, which no choice reads
    candidate = Candidate(name, nothing, OwnPrecision({"engine": "fp32"}), metrics, uniform)
    return Finalist(candidate, {"": ms}, FLOORS.checks(metrics))


def test_blocks_are_ordered_by_the_task_that_they_hurt_most_for_its_floor() -> None:
    alone = {
        "wide": {"pose": 1.0, "face": 0.95},  # half of a floor
        "sharp": {"pose": 0.992, "face": 1.0},  # four fifths of one
        "mild": {"pose": 0.999, "face": 0.999},
    }
    assert FLOORS.drops == {"pose": 0.01, "face": 0.1}
    assert gentlest_first(alone, FLOORS.drops) == ["mild", "wide", "sharp"]
    scored = {name: by_agreement(agreements) for name, agreements in alone.items()}
    assert FLOORS.are_kept(scored["wide"]) and not FLOORS.are_kept(by_agreement({"pose": 0.98, "face": 1.0}))
    assert FLOORS.share(scored["sharp"]) == pytest.approx(0.8)


def test_floors_of_labels_are_of_each_tasks_own_metric() -> None:
    """A rise of an error is a loss, a value is a floor of its own, and the float net must keep every one."""
    tasks = [
        make_task("depth", "depth"),
        make_task("semseg", "segmentation", 5),
        make_task("side", "classification", 2),
    ]
    floors = parse_floors(["depth=2%", "semseg.miou>0.5"], tasks, labelled=True)
    baseline = {"depth": {"rmse": 0.5, "abs_rel": 0.1}, "semseg": {"miou": 0.6}, "side": {"accuracy": 0.9}}
    limits = Floors(tuple(tasks), floors, baseline)
    assert limits.drops == {"depth": 0.02, "semseg": pytest.approx(1 / 6), "side": 0.01}
    worse = {**baseline, "depth": {"rmse": 0.52, "abs_rel": 0.1}}
    assert [check.name for check in limits.checks(worse) if not check.kept] == ["floor depth=2%"]
    assert "depth loses 4 % of rmse on validation images" in limits.checks(worse)[0].words
    assert limits.are_kept({**baseline, "semseg": {"miou": 0.51}, "depth": {"rmse": 0.4, "abs_rel": 0.1}})
    assert limits.share({**baseline, "semseg": {"miou": 0.55}}) == pytest.approx(0.5)
    words = refused(lambda: Floors(tuple(tasks), floors, {**baseline, "semseg": {"miou": 0.4}}))
    assert "floor semseg.miou>0.5: the net in float has miou 0.4 on validation images" in words
    assert "no finite score in task side" in refused(
        lambda: Floors(tuple(tasks), floors, {**baseline, "side": {"accuracy": float("nan")}})
    )


def test_a_floor_on_a_named_metric_needs_labels() -> None:
    for text in ("face.miou=1%", "face>0.5", "pose.mae<2"):
        words = refused(lambda text=text: parse_floors([text], TASKS, labelled=False))
        assert "photos have no labels" in words and "give a data set with labels by --data" in words


def test_the_longest_beginning_that_keeps_floors_is_met_by_halving() -> None:
    for count in range(1, 20):
        for most in range(count + 1):
            tried: list[int] = []

            def kept(length: int, most: int = most, tried: list[int] = tried) -> bool:
                tried.append(length)
                return length <= most

            assert longest_kept(count, kept) == most
            assert len(tried) == len(set(tried)) <= 2 + count.bit_length()


def test_blocks_that_int8_makes_slower_are_left_out() -> None:
    float_ms, rounded_ms = {"a": 5.0, "b": 1.0, "c": 1.0}, {"a": 2.0, "b": 1.5, "c": 0.95}
    assert list(worth_rounding("abc", float_ms, rounded_ms)) == [("a", "c"), ("a",)]
    assert list(worth_rounding("a", float_ms, rounded_ms)) == []


def test_the_fastest_that_keeps_floors_is_chosen_and_a_mixture_only_where_it_is_clearly_faster() -> None:
    plain, eight = finalist("fp32", 10.0, 0.0, True), finalist("int8", 4.0, 0.05, True)
    slow, fast = finalist("mixed-1", 9.8, 0.005, False), finalist("mixed-2", 6.0, 0.005, False)
    assert choose([plain, eight]) is plain
    assert choose([plain, eight, slow]) is plain
    assert choose([plain, eight, slow, fast]) is fast
    assert choose([plain, finalist("int8", 5.9, 0.009, True), fast]).candidate.name == "int8"
    assert choose([finalist("bf16", 3.0, 0.4, True), finalist("int8", 4.0, 0.02, True)]).candidate.name == "int8"
