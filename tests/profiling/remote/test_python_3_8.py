from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from loopback import LoopbackBoard, python_of
from two_heads import bundle_in

from edgemtl.profiling import profile


@pytest.mark.slow
def test_python_3_8_measures(board: LoopbackBoard, tmp_path: Path) -> None:
    """With the numpy and the ONNX Runtime that are the last for it, in an environment of its own."""
    python = python_of("3.8")
    if python is None:
        pytest.skip("no Python 3.8 on this machine")
    venv = tmp_path / "venv"
    subprocess.run([python, "-m", "venv", str(venv)], check=True)
    subprocess.run([str(venv / "bin/pip"), "install", "-q", "numpy", "onnxruntime"], check=True)
    folder, _ = bundle_in(tmp_path / "bundle")
    measured = profile(folder, board.url(str(venv / "bin/python")), runs=20, threads=1)
    assert measured.environment["python"].startswith("3.8.")
    assert [mode.latency.n for mode in measured.modes] == [20, 20, 20]
    assert measured.operators is not None and measured.opening is not None
