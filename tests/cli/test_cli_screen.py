from __future__ import annotations

import json
import os
import pty
import sys
from functools import partial
from pathlib import Path

import pytest

from edgemtl.cli import main
from edgemtl.cli import stages as _stages
from edgemtl.cli.screen import Screen
from edgemtl.cli.search import _show_event
from edgemtl.cli.stages import Stages
from edgemtl.nas.evaluation import PreflightRow
from edgemtl.nas.search import Preflight
from edgemtl.progress import Progress
from edgemtl.units import parse_budget


def test_json_leaves_standard_output_to_one_value(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(as_json=True)
    screen.say("words")
    screen.note("more")
    screen.table("numbers", ("a",), [(1,)])
    screen.json({"a": 1})
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"a": 1}
    assert "words" in shown.err and "numbers" in shown.err


def test_a_table_writes_no_json_and_a_dash_for_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.table("numbers", ("name", "value"), [("one", 1.23456), ("none", None)])
    screen.json({"a": 1})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["one", "1.235"] in lines and ["none", "-"] in lines
    assert not any("{" in word for line in lines for word in line)


def test_progress_is_plain_lines_at_intervals(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 10_000, 5))
    monkeypatch.setattr(_stages.time, "monotonic", lambda: float(next(clock)))
    with Stages() as stages:
        for done in range(1, 41):
            stages(Progress("steps", done, 40, "note"))
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert shown.out == "" and "\r" not in shown.err and "\x1b" not in shown.err
    assert lines[0].startswith("steps: 1/40, note") and lines[-1].startswith("steps: 40/40, note")
    assert 5 < len(lines) < 30
    assert lines[1].endswith(" left)") and "about" in lines[1] and not lines[-1].endswith("left)")


def test_what_is_left_is_estimated_unless_somebody_knows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [0.0]
    monkeypatch.setattr(_stages.time, "monotonic", lambda: now[0])
    with Stages() as stages:
        stages(Progress("steps", 100, 400))  # a run that is resumed: what was done before took no time of this one
        now[0] = 60.0
        stages(Progress("steps", 200, 400))
        now[0] = 90.0
        stages(Progress("steps", 250, 400, "", 7200.0))
        stages(Progress("steps", 0, 0, "a word"))
        stages(Progress("", 0, 0, "another"))
    assert capsys.readouterr().err.splitlines() == [
        "steps: 100/400 (0 s)",
        "steps: 200/400 (60 s, about 2 min left)",
        "steps: 250/400 (90 s, about 2.0 h left)",
        "steps: a word",
        "another",
    ]


HOSTILE = "\x1b]0;owned\x07\x1b[2Jred\u202e[bold]x[/bold]\r\n"


def test_nothing_that_is_shown_commands_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen()
    screen.note(HOSTILE)
    screen.say(HOSTILE)
    screen.table(HOSTILE, (HOSTILE, "b"), [(HOSTILE, 1), ("plain", 2)])
    screen.json({"a": HOSTILE})
    with Stages() as stages:
        stages(Progress(HOSTILE, 1, 1, HOSTILE))
        stages(Progress(HOSTILE, 0, 0, HOSTILE))
    shown = capsys.readouterr()
    text = shown.out + shown.err
    assert "".join(text.split("\n")).isprintable()
    assert r"\x1b[2Jred\u202e[bold]x[/bold]\r\n" in text


def test_nothing_in_an_error_commands_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["report", HOSTILE],
        ["devices", HOSTILE],
        ["run", "--" + HOSTILE],
        [HOSTILE],
        ["search", "--debug", "--data", HOSTILE, "--budget", "1ms"],
    ):
        assert main(words) in (1, 2)
        shown = capsys.readouterr()
        assert "".join((shown.out + shown.err).split("\n")).isprintable(), shown


WIDE = [
    ("only semseg, p50, jetson-orin-nano/onnxruntime", "15.99 ms", "16.01 ms", "1.001", "within noise", "measured"),
    ("depth rmse", "0.5123 m", "0.5012 m", "0.978", "second", "evaluated"),
    ("MACs", "-", "617.28 MMACs", "-", "-", "counted"),
]
HEAD = ("figure", "first", "second", "second / first", "better", "how obtained")


@pytest.mark.parametrize("columns", [40, 60, 80, 100, 160])
def test_no_width_of_the_terminal_breaks_a_word(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    Screen().table("first and second", HEAD, WIDE)
    shown = capsys.readouterr().out
    words = {word.rstrip(":") for word in shown.split()}
    assert {word for row in WIDE for cell in row for word in cell.split() if word != "-"} <= words
    assert ("figure" in words) == (columns >= 100), "columns side by side, or figures below each other"
    assert max(map(len, shown.splitlines())) <= columns


def test_a_word_that_no_screen_holds_is_folded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    Screen().table("names", ("name", "ms"), [("n" * 300, 1.5)])
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100 and sum(line.count("n") for line in lines) >= 300


def show_a_table_after_a_bar() -> None:
    with Stages() as stages:
        show = partial(_show_event, Screen(), stages)
        show(Progress("images", 1, 2))
        show(Preflight("preflight", 1, 1, rows=(PreflightRow(parse_budget("2GFLOPs"), 2e9, 1e9, 2e9, 3e9),)))


def test_the_table_before_a_search_ends_the_bar_and_is_on_standard_output(tmp_path: Path) -> None:
    """As in `edgemtl search > log` on a terminal; in a fork, which need not import torch again."""
    terminal, side = pty.openpty()
    child = os.fork()
    if child == 0:
        try:
            os.dup2(os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT), 1)
            os.dup2(side, 2)
            os.environ["TERM"] = "xterm"
            sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
            show_a_table_after_a_bar()
            os._exit(0)
        finally:
            os._exit(70)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    shown = os.read(terminal, 1 << 16).decode()
    os.close(side)
    os.close(terminal)
    assert "images: 1/2" in shown
    assert "Before the search" in (tmp_path / "log").read_text()
