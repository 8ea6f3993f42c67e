from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemtl.report.drawing.svg import (
    Point,
    _best_steps,
    histogram,
    log_ticks,
    nice_ticks,
    scatter,
    short_number,
    signed_number,
)

FINITE = st.floats(-1e9, 1e9, allow_nan=False)


@settings(deadline=None, max_examples=60)
@given(FINITE, st.floats(1e-3, 1e9))
def test_ticks_are_even_round_and_cover_the_range(low: float, span: float) -> None:
    high = low + span
    ticks = nice_ticks(low, high)
    steps = [after - before for before, after in pairwise(ticks)]
    slack = 1e-6 * max(abs(low), abs(high), 1)
    assert ticks[0] <= low + slack and ticks[-1] >= high - slack
    assert 2 <= len(ticks) <= 12
    assert max(steps) - min(steps) <= slack
    if span > 1e-4 * abs(low):
        assert re.fullmatch(r"[125]e[+-]\d+", f"{steps[0]:.0e}")


@pytest.mark.parametrize("value", [0.0, 5.0, -3.0, 1e9])
def test_ticks_of_a_single_value(value: float) -> None:
    ticks = nice_ticks(value, value)
    assert ticks[0] <= value <= ticks[-1] and len(ticks) >= 2


@pytest.mark.parametrize(("value", "text"), [(1.5e9, "1.5G"), (2e7, "20M"), (3000, "3k"), (0.5, "0.5"), (0, "0")])
def test_short_numbers(value: float, text: str) -> None:
    assert short_number(value) == text


def test_signed_numbers() -> None:
    assert [signed_number(value) for value in (2.0, -0.5, 0.0)] == ["+2", "-0.5", "0"]


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.floats(0, 100), st.floats(-20, 5)), min_size=1, max_size=30))
def test_the_staircase_is_the_pareto_front(values: list[tuple[float, float]]) -> None:
    points = [Point(x, y, "front", "") for x, y in values]
    front = {(x, y) for x, y in values if not any((a <= x and b > y) or (a < x and b >= y) for a, b in values)}
    corners = _best_steps(points)
    assert front <= set(corners)
    assert [x for x, _ in corners] == sorted(x for x, _ in corners)
    assert [y for _, y in corners] == sorted(y for _, y in corners)


def test_infeasible_points_are_shown_but_lead_no_staircase() -> None:
    points = [Point(1, 1, "infeasible", "bad"), Point(2, 0, "front", "good"), Point(3, 1, "chosen", "best")]
    assert _best_steps(points) == [(2, 0), (3, 0), (3, 1)]
    picture = ET.fromstring(_scatter(points))
    assert {title.text for title in picture.iter("title")} == {"bad", "good", "best"}
    kinds = [node.get("class", "").split()[-1] for node in picture.iter() if "mark" in node.get("class", "")]
    assert kinds == ["infeasible", "front", "chosen"]


def _scatter(points: list[Point], limit: tuple[float, str] | None = None) -> str:
    return scatter(points, title="t", labels=("x", "y"), formats=(short_number, short_number), limit=limit)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(FINITE, FINITE), min_size=1, max_size=8), st.text(max_size=20))
def test_marks_stay_inside_the_picture(values: list[tuple[float, float]], hostile: str) -> None:
    points = [Point(abs(x), y, "front", "p") for x, y in values]
    picture = _scatter(points, (abs(values[0][0]) + 1, hostile.replace("\x00", "").strip() or "limit"))
    for found in re.finditer(r'<circle cx="([-\d.e]+)" cy="([-\d.e]+)"', picture):
        assert 60 <= float(found[1]) <= 520 and 0 <= float(found[2]) <= 340


@settings(deadline=None, max_examples=60)
@given(st.lists(st.floats(0.01, 1e4), min_size=1, max_size=300))
def test_histogram_counts_every_sample(samples: list[float]) -> None:
    picture = ET.fromstring(histogram(samples, {"p50": sorted(samples)[len(samples) // 2]}, title="t", unit="ms"))
    counts = [int((title.text or "").rpartition(": ")[2]) for title in picture.iter("title")]
    assert sum(counts) == len(samples)
    assert any(text.text == "p50" for text in picture.iter("text"))


@settings(deadline=None, max_examples=60)
@given(st.floats(1e-3, 1e3), st.floats(1.01, 1e6))
def test_log_ticks_cover_the_range(low: float, ratio: float) -> None:
    ticks = log_ticks(low, low * ratio)
    assert ticks[0] <= low * (1 + 1e-6) and ticks[-1] >= low * ratio * (1 - 1e-6)
    assert ticks == sorted(set(ticks)) and 2 <= len(ticks) <= 12
    assert all(re.fullmatch(r"[125]e[+-]\d+", f"{tick:.0e}") for tick in ticks)


def test_a_stall_makes_the_axis_logarithmic() -> None:
    calm, stalled = [1.0 + i / 100 for i in range(50)], [1.0 + i / 100 for i in range(50)] + [80.0]
    pictures = [histogram(samples, {"p50": 1.25}, title="t", unit="ms") for samples in (calm, stalled)]
    assert ["logarithmic" in picture for picture in pictures] == [False, True]
    bars = [node for node in ET.fromstring(pictures[1]).iter("rect") if node.get("class") == "bar"]
    assert len(bars) >= 3 and all(62 <= float(bar.get("x", 0)) <= 502 for bar in bars)


def test_equal_samples_are_one_bar() -> None:
    bars = [node for node in ET.fromstring(histogram([2.0] * 9, {}, title="t", unit="ms")).iter("rect")]
    assert len(bars) == 1
