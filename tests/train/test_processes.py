from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

TRAIN = ("train", "--space", "cnn", "--data", "scenes", "--size", "64x64", "--images", "16", "--sizes", "1")


def edgemtl(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    command = [sys.executable, "-m", "edgemtl", *words]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def test_two_processes_train_one_supernet_and_say_so(tmp_path: Path) -> None:
    done = edgemtl(*TRAIN, "--steps", "4", "--batch", "2", "--processes", "2", "--out", "two", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "two/training.json").read_text())
    assert summary["processes"] == 2
    assert "--processes 2" in summary["command"]
    assert [json.loads(line)["step"] for line in (tmp_path / "two/train.jsonl").read_text().splitlines()] == [4]


def test_a_process_too_many_is_refused(tmp_path: Path) -> None:
    done = edgemtl(*TRAIN, "--processes", "0", cwd=tmp_path)
    assert done.returncode == 2
    assert "--processes" in done.stderr
