from __future__ import annotations

import json

import pytest

from edgemtl.cli import _screen, main
from edgemtl.cli._screen import Screen


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
    monkeypatch.setattr(_screen.time, "monotonic", lambda: float(next(clock)))
    with Screen().progress("steps") as progress:
        for done in range(1, 41):
            progress(done, 40, "note")
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert shown.out == "" and "\r" not in shown.err and "\x1b" not in shown.err
    assert lines[0].startswith("steps: 1/40, note") and lines[-1].startswith("steps: 40/40, note")
    assert 5 < len(lines) < 30


HOSTILE = "\x1b]0;owned\x07\x1b[2Jred\u202e[bold]x[/bold]\r\n"


def test_nothing_that_is_shown_commands_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(verbose=True)
    screen.note(HOSTILE)
    screen.detail(HOSTILE)
    screen.say(HOSTILE)
    screen.table(HOSTILE, (HOSTILE, "b"), [(HOSTILE, 1), ("plain", 2)])
    screen.json({"a": HOSTILE})
    with screen.progress(HOSTILE) as progress:
        progress(1, 1, HOSTILE)
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
