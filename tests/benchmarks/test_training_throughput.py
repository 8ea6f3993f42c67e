from __future__ import annotations

import sys
from pathlib import Path

import pytest
import training_throughput
from training_throughput import _records, _speed

TRAINS = """
import json, sys, time
from pathlib import Path
words = sys.argv[1:]
steps, out = int(words[words.index("--steps") + 1]), Path(words[words.index("--out") + 1])
out.mkdir()
with (out / "train.jsonl").open("w") as log:
    for step in range(20, {last} + 1, 20):
        print(json.dumps({{"step": step, "images_per_second": step / 10}}), file=log, flush=True)
time.sleep({rest})
"""


def trains(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, last: int, rest: float) -> None:
    """In place of a training a process that reports up to its `last` step, and then does something else."""
    script = tmp_path / "script.py"
    script.write_text(TRAINS.format(last=last, rest=rest))

    class Process(training_throughput.subprocess.Popen):
        def __init__(self, command: list[str], **more: object) -> None:
            super().__init__([sys.executable, str(script), *command[3:]], **more)

    monkeypatch.setattr(training_throughput.subprocess, "Popen", Process)


def test_a_run_is_ended_at_its_last_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trains(monkeypatch, tmp_path, last=80, rest=600)
    assert _speed([], 80) == 6, "the median of all reports but the first"


def test_a_run_that_ends_too_soon_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    trains(monkeypatch, tmp_path, last=40, rest=0)
    with pytest.raises(SystemExit, match="status 0 before its last step"):
        _speed([], 80)


def test_half_a_line_is_no_report_yet(tmp_path: Path) -> None:
    log = tmp_path / "train.jsonl"
    assert _records(log) == []
    log.write_text('{"step": 20}\n{"step"')
    assert _records(log) == [{"step": 20}]
