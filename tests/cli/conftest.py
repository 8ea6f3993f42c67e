from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
Shell = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    """The command `edgemtl` in a process of its own, away from the checkout, one thread."""

    def call(
        *words: str, cwd: Path | None = None, prefix: Sequence[str] = ("-m", "edgemtl"), seconds: float = 300
    ) -> subprocess.CompletedProcess[str]:
        paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
        command = [sys.executable, *prefix, *words]
        return subprocess.run(
            command, cwd=cwd or tmp_path, env=environment, text=True, capture_output=True, timeout=seconds, check=False
        )

    return call
