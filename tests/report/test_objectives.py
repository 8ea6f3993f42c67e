from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_reader import HOSTILE, Page, check_harmless
from report_data import entry_content, result_content

from edgemtl.report import write_report
from edgemtl.report.drawing.parallel import Coordinate, Line, parallel_coordinates
from edgemtl.report.drawing.svg import short_number, signed_number

FINITE = st.floats(-1e9, 1e9, allow_nan=False)
AXES = (Coordinate("delta_m, %", True, signed_number), Coordinate("ms", False, short_number))


def heights(picture: str) -> list[list[float]]:
    """How far down each line's corners are, by line in the order of drawing."""
    lines = ET.fromstring(picture).iter("polyline")
    return [[float(corner.split(",")[1]) for corner in line.get("points", "").split()] for line in lines]


def test_better_is_up_on_every_axis() -> None:
    lines = [Line((-5.0, 2.0), "front", "fast"), Line((-1.0, 8.0), "front", "good"), Line((-3.0, 5.0), "front", "even")]
    fast, good, even = heights(parallel_coordinates(AXES, lines, title="t"))
    assert fast[0] > even[0] > good[0] and fast[1] < even[1] < good[1]
    assert (fast[1], fast[0]) == (good[0], good[1]), "the best are at one height, and so are the worst"
    texts = [node.text for node in ET.fromstring(parallel_coordinates(AXES, lines, title="t")).iter("text")]
    assert texts == ["-1", "-5", "delta_m, %", "2", "8", "ms"]


def test_one_value_stands_in_the_middle_and_the_chosen_line_on_top() -> None:
    lines = [Line((1.0, 4.0), "chosen", "a"), Line((1.0, 2.0), "front", "b"), Line((1.0, 8.0), "infeasible", "c")]
    picture = parallel_coordinates(AXES, lines, title="t")
    drawn = [node.get("class") for node in ET.fromstring(picture).iter("polyline")]
    assert drawn == ["line infeasible", "line front", "line chosen"]
    (middle,) = {line[0] for line in heights(picture)}
    assert max(each for line in heights(picture) for each in line) > middle


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 8).flatmap(lambda n: st.lists(st.tuples(*[FINITE] * n), min_size=1, max_size=6)))
def test_lines_stay_inside_the_picture(rows: list[tuple[float, ...]]) -> None:
    axes = [Coordinate(HOSTILE, index % 2 == 0, short_number) for index in range(len(rows[0]))]
    picture = ET.fromstring(parallel_coordinates(axes, [Line(row, "front", HOSTILE) for row in rows], title=HOSTILE))
    _, _, width, height = map(float, picture.get("viewBox", "").split())
    for line in picture.iter("polyline"):
        corners = [tuple(map(float, corner.split(","))) for corner in line.get("points", "").split()]
        assert len(corners) == len(axes)
        assert all(0 < x < width and 0 < y < height for x, y in corners)


def page_of(folder: Path, **changes: Any) -> Page:
    (folder / "result.json").write_text(json.dumps(result_content(**changes)))
    page = Page(write_report(folder).read_text())
    check_harmless(page)
    return page


def lines_of(page: Page) -> list[str]:
    return [str(a["class"]) for tag, a in page.tags if tag == "polyline" and str(a["class"]).startswith("line ")]


def test_a_search_for_three_objectives_shows_them_side_by_side(tmp_path: Path) -> None:
    page = page_of(tmp_path, objectives=["delta_m", "latency", "bytes", "depth"])
    charts = [str(a["aria-label"]) for tag, a in page.tags if tag == "svg" and a.get("role") == "img"]
    assert "objectives: delta_m, latency, bytes, depth" in charts
    assert lines_of(page) == ["line infeasible", "line front", "line baseline", "line chosen"]
    assert "The objectives side by side, better is up on each" in page.text
    assert "left out" not in page.text


def test_designs_without_all_figures_are_counted_and_latencies_of_another_kind_are_such(tmp_path: Path) -> None:
    content = result_content()
    predicted = {"value": 5.0, "kind": "predicted", "device": "host", "runtime": "onnxruntime"}
    content["front"].append(entry_content(design={"stem.width": 9}, latency_ms=predicted, name="guess"))
    content["front"].append(entry_content(design={"stem.width": 10}, latency_ms=None, name="untimed"))
    page = page_of(tmp_path, front=content["front"], objectives=["delta_m", "latency", "params"])
    assert len(lines_of(page)) == 4
    assert "2 designs without all of these figures are left out" in page.text
    counted = page_of(tmp_path, front=content["front"], objectives=["delta_m", "flops", "params"])
    assert len(lines_of(counted)) == 6


@pytest.mark.parametrize("objectives", [[], ["delta_m", "latency"], ["delta_m", "latency", "<script>"]])
def test_two_objectives_and_unknown_ones_have_no_such_picture(tmp_path: Path, objectives: list[str]) -> None:
    assert lines_of(page_of(tmp_path, objectives=objectives)) == []
