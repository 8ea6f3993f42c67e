from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest
from _common import Outcome, Row, main


def test_a_result_says_its_rows_and_the_options_that_it_was_made_with(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def add(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--steps", type=int)
        parser.add_argument("--size")
        parser.add_argument("--work", type=Path, default=Path("/some/runs"))

    def benchmark(options: argparse.Namespace) -> Outcome:
        return Outcome([Row("seen", options.steps, "steps", 3, None)], {"raw": [1]})

    monkeypatch.setattr("sys.argv", ["some.py", "--quick", "--format", "json", "--steps", "4"])
    with pytest.raises(SystemExit) as ended:
        main(benchmark, "A benchmark.", add)
    content = json.loads(capsys.readouterr().out)
    assert content["options"] == {"steps": 4, "work": "runs"}
    assert content["rows"] == [{"name": "seen", "value": 4, "unit": "steps", "least": 3, "aim": None, "holds": False}]
    assert ended.value.code == 1


def test_what_could_not_be_measured_says_so_and_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["energy.py", "--quick"])
    with pytest.raises(SystemExit) as ended:
        main(lambda options: Outcome([], {"reason": "it has no energy counter"}), "A benchmark.")
    assert "not measured: it has no energy counter" in capsys.readouterr().out
    assert ended.value.code == 0
