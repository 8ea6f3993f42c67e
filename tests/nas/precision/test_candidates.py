"""Candidates and choice, on figures made by hand."""

from __future__ import annotations

from typing import Any

from edgemtl.nas.precision.candidates import gentlest_first, keeps_floors, longest_kept, worth_rounding
from edgemtl.nas.precision.finalists import Candidate, Finalist, choose, floor_checks
from edgemtl.own import OwnPrecision

ALLOWED = {"pose": 0.01, "face": 0.1}


def finalist(name: str, ms: float, lost: float, uniform: bool) -> Finalist:
    agreements = {"pose": 1 - lost, "face": 1.0}
    nothing: Any = None  # a net, which no choice reads
    candidate = Candidate(name, nothing, OwnPrecision({"engine": "fp32"}), agreements, uniform)
    return Finalist(candidate, {"": ms}, tuple(floor_checks(agreements, ALLOWED)))


def test_blocks_are_ordered_by_the_task_that_they_hurt_most_for_its_floor() -> None:
    alone = {
        "wide": {"pose": 1.0, "face": 0.95},  # half of a floor
        "sharp": {"pose": 0.992, "face": 1.0},  # four fifths of one
        "mild": {"pose": 0.999, "face": 0.999},
    }
    assert gentlest_first(alone, ALLOWED) == ["mild", "wide", "sharp"]
    assert keeps_floors(alone["wide"], ALLOWED) and not keeps_floors({"pose": 0.98, "face": 1.0}, ALLOWED)


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
