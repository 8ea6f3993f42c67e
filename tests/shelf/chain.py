"""A data set and a space so small that every verb can be run on them for real."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgemtl.cli import main

ROOT = Path(__file__).parents[2]
Here = Callable[..., tuple[int, str, str]]
"""The command in this process: its words to its status, output and errors."""
SPACE = """
schema: edgemtl.space/1
family: cnn
input: [64, 64]
precision: [float, int8]
cnn:
  activation: relu
  stem: {width: [8]}
  stages:
    - {name: s1, stride: 2, width: [8, 16], depth: [1], block: [fused], expand: [2]}
    - {name: s2, stride: 2, width: [8, 16], depth: [1, 2], block: [depthwise, fused], expand: [2], kernel: [3]}
  features: [s1, s2]
  decoder: {width: [8, 16], depth: [1]}
"""
DATA = """
images: {train: images/train, calibration: images/calibration, validation: images/validation, test: images/test}
tasks:
  regions: {kind: segmentation, files: "regions/{name}.png", classes: [dark, bright]}
  depth: {kind: depth, files: "depth/{name}.npy"}
  side: {kind: classification, csv: sides.csv, image: file, column: side, classes: [left, right]}
"""
COUNTS = {"train": 12, "calibration": 4, "validation": 6, "test": 6}


def edgemtl(folder: Path, *words: str, prefix: Sequence[str] = ("-m", "edgemtl")) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, in `folder`, which also holds its cache."""
    command = [sys.executable, *prefix, *words]
    return subprocess.run(
        command, cwd=folder, env=environment(folder), text=True, capture_output=True, timeout=600, check=False
    )


def in_process(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """As `edgemtl`, without the seconds that a process takes to import torch: for fixtures and long tests."""
    output, errors = StringIO(), StringIO()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        patch.chdir(folder)
        for name in ("COLUMNS", "EDGEMTL_CACHE"):
            patch.setenv(name, environment(folder)[name])
        with redirect_stdout(output), redirect_stderr(errors):
            status = main(words)
    logging.disable(logging.NOTSET)
    return subprocess.CompletedProcess(words, status, output.getvalue(), errors.getvalue())


def environment(folder: Path) -> dict[str, str]:
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return {
        **os.environ,
        "PYTHONPATH": paths,
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "200",
        "EDGEMTL_CACHE": str(folder / "cache"),
    }


def make_workplace(folder: Path) -> None:
    """A bright patch on a dark ground: where it is, how far, and on which side."""
    rng = np.random.default_rng(0)
    sides = ["file,side"]
    for split, count in COUNTS.items():
        for number in range(count):
            name = f"{split}{number}"
            row, column = rng.integers(0, 40, 2)
            inside = np.zeros((64, 64), bool)
            inside[row : row + 24, column : column + 24] = True
            photo = rng.integers(0, 60, (64, 64, 3)) + 150 * inside[..., None]
            _save(folder / f"data/images/{split}/{name}.png", photo.astype(np.uint8))
            _save(folder / f"data/regions/{name}.png", inside.astype(np.uint8))
            (folder / "data/depth").mkdir(exist_ok=True)
            np.save(folder / f"data/depth/{name}.npy", np.where(inside, 2.0, 5.0).astype(np.float32))
            sides.append(f"{name}.png,{'left' if column < 20 else 'right'}")
    (folder / "data/sides.csv").write_text("\n".join(sides) + "\n")
    (folder / "data/data.yaml").write_text(DATA)
    (folder / "nas").mkdir()
    (folder / "nas/tiny.yaml").write_text(SPACE)


def _save(path: Path, pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
