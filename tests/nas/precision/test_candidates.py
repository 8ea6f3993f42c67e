"""Candidates and choice, on figures made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
from net_finalists import FLOORS, TASKS, finalist
from refusals import refused

from edgemtl.nas.precision.candidates import gentlest_first, longest_kept, worth_rounding
from edgemtl.nas.precision.finalists import acceptable, choose
from edgemtl.nas.precision.floors import Floors, parse_floors
from edgemtl.nas.precision.scoring import by_agreement
from edgemtl.tasks import make_task


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


@pytest.mark.parametrize(
    ("preference", "chosen"),
    [
        ({}, "quick"),
        ({"pose": 2.0, "face": 2.0}, "quick"),  # which prefers none
        ({"pose": 1.0, "face": 3.0}, "careful"),
        ({"pose": 3.0, "face": 1.0}, "quick"),
    ],
)
def test_a_preference_decides_between_two_that_keep_all_limits(preference: dict[str, float], chosen: str) -> None:
    """Each loses in one task: the quicker is chosen only where that one weighs little."""
    floors = replace(FLOORS, preference=preference)
    quick = finalist("quick", 4.0, 0.0, True, face_lost=0.02, floors=floors)
    careful = finalist("careful", 6.0, 0.009, True, floors=floors)
    assert choose([careful, quick]).candidate.name == chosen


def test_a_preference_gives_half_a_point_away_for_speed_and_weighs_nothing_that_breaks_a_limit() -> None:
    floors = replace(FLOORS, preference={"pose": 3.0, "face": 1.0})
    plain = finalist("fp32", 10.0, 0.0, True, floors=floors)
    near, far = (finalist("int8", 4.0, lost, True, floors=floors) for lost in (0.006, 0.007))
    assert choose([plain, near]) is near and choose([plain, far]) is plain
    assert acceptable([plain, near, far]) == [plain, near] and acceptable([far]) == [far]
    broken = finalist("int8", 4.0, 0.02, True, floors=floors)
    assert acceptable([broken]) == [] and choose([broken]) is broken


def test_a_preference_orders_blocks_and_forms_by_what_it_weighs() -> None:
    alone = {"eyes": {"pose": 1.0, "face": 0.98}, "arms": {"pose": 0.996, "face": 1.0}}
    assert gentlest_first(alone, FLOORS.weighted_drops) == ["eyes", "arms"]
    floors = replace(FLOORS, preference={"pose": 1.0, "face": 4.0})
    assert floors.weighted_drops == {"pose": 0.01, "face": 0.025}
    assert gentlest_first(alone, floors.weighted_drops) == ["arms", "eyes"]
    eyes, arms = (by_agreement(alone[name]) for name in ("eyes", "arms"))
    assert FLOORS.rank(eyes) < FLOORS.rank(arms) and floors.rank(arms) < floors.rank(eyes)
    assert floors.are_kept_well(arms) and floors.are_kept(eyes) and not floors.are_kept_well(eyes)
    broken = by_agreement({"pose": 0.98, "face": 1.0})
    assert floors.rank(eyes) < floors.rank(broken), "floors come first"
