from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.slow
def test_a_few_kills_of_every_verb_lose_nothing() -> None:
    command = [
        sys.executable,
        str(BENCHMARKS / "kills.py"),
        "--quick",
        "--kills",
        "12",
        "--seed",
        "7",
        "--format",
        "json",
    ]
    paths = os.pathsep.join([str(BENCHMARKS.parent), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, text=True, capture_output=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row["value"] for row in json.loads(done.stdout)["rows"]}
    assert rows["lost"] == 0 and rows["kills"] >= 8
