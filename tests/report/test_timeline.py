from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import Counter

import pytest

from edgemtl.report import draw_schedule
from edgemtl.report.drawing.timeline import BAD, LEFT, RIGHT, WIDTH
from edgemtl.runtime import EngineCall, Job, Schedule, ScheduleRun, TaskRun

SVG = "{http://www.w3.org/2000/svg}"


def made(names: tuple[str, str] = ("depth", "semseg"), slow_hz: float = 2.0, elapsed_s: float = 3.0) -> ScheduleRun:
    """Two tasks: of the first, one job is in time, one late, one skipped and one pending."""
    first = (
        Job(0.0, 0.25, start_s=0.0, end_s=0.1),
        Job(0.25, 0.5, start_s=0.3, end_s=0.6),
        Job(0.5, 0.75, skipped=True),
        Job(0.75, 1.0),
    )
    tasks = {
        names[0]: TaskRun(4.0, first),
        names[1]: TaskRun(slow_hz, (Job(0.0, 0.5, start_s=0.0, end_s=0.1),)),
    }
    calls = (EngineCall(0.0, 0.1, names), EngineCall(0.3, 0.6, names[:1]))
    return ScheduleRun(Schedule({names[0]: 4.0, names[1]: slow_hz}), tasks, calls, elapsed_s, False)


def test_every_job_is_drawn_and_what_came_too_late_is_red() -> None:
    picture = ET.fromstring(draw_schedule(made()))
    tips = Counter((title.text or "").partition(":")[2] for title in picture.iter(f"{SVG}title"))
    assert tips[" result after 100.00 ms, 150.00 ms to spare"] == 1
    assert tips[" result after 350.00 ms, 100.00 ms too late"] == 2, "its bar and its mark"
    assert tips[" skipped, the next one came before it could begin"] == 1
    red = [node for node in picture.iter() if BAD in (node.get("fill"), node.get("stroke"))]
    assert Counter(node.tag.removeprefix(SVG) for node in red) == {"polygon": 2, "path": 2, "text": 1}, "and the legend"
    words = [text.text or "" for text in picture.iter(f"{SVG}text")]
    assert "1 missed, 1 skipped of 4" in words and "0.6667 of 4 Hz" in words
    assert "first 1 of 3 s; 2 calls, engine busy 13% of the time" in words


def test_bars_stand_where_their_calls_were() -> None:
    picture = ET.fromstring(draw_schedule(made()))
    bars = [node for node in picture.iter(f"{SVG}rect") if node.find(f"{SVG}title") is not None]
    room = WIDTH - LEFT - RIGHT
    found = {(float(bar.get("x", 0)), float(bar.get("width", 0)) + 1) for bar in bars}  # and a gap of a pixel
    assert sorted(found) == [
        pytest.approx((LEFT, 0.1 * room), abs=0.02),
        pytest.approx((LEFT + 0.3 * room, 0.3 * room), abs=0.02),
    ]


def test_a_slow_task_is_shown_for_two_seconds_and_a_short_run_as_a_whole() -> None:
    assert "first 2 of 3 s" in draw_schedule(made(slow_hz=1.0))
    assert ">0.8 s; 2 calls" in draw_schedule(made(elapsed_s=0.8))
    nothing = ScheduleRun(Schedule({"depth": 1}), {"depth": TaskRun(1, ())}, (), 0.0, True)
    assert ET.fromstring(draw_schedule(nothing)).tag == f"{SVG}svg"


def test_a_hostile_name_is_text() -> None:
    picture = draw_schedule(made(("<script>alert(1)</script>", 'a"b&c')))
    assert "<script" not in picture
    assert any("<script>" in (text.text or "") for text in ET.fromstring(picture).iter(f"{SVG}text"))
