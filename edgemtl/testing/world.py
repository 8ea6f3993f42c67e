"""A small world for searches: pictures with labels of two tasks, and an untrained supernet."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from edgemtl.models import Supernet, save_supernet
from edgemtl.spaces import Space
from edgemtl.tasks import make_task

__all__ = ["TASKS", "write_data", "write_supernet"]

TASKS = (make_task("depth", "depth"), make_task("kind", "classification", classes=("dark", "bright")))
DATA = """\
images: {train: images/train, validation: images/val, test: images/test}
tasks:
  depth: {kind: depth, files: "depth/{split}/{name}.png", scale: 0.001}
  kind: {kind: classification, csv: kinds.csv, image: file, column: kind, classes: [dark, bright]}
"""
COUNTS = {"train": 6, "val": 3, "test": 3}
SPLITS = {"train": "train", "val": "validation", "test": "test"}


def write_data(folder: Path, counts: Mapping[str, int] = COUNTS) -> Path:
    """A data set in a folder: pictures of a slope, with its depth and whether it is bright, a dozen; the folder."""
    rows = ["file,kind"]
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for number in range(count):
            slope = np.linspace(0, 1, 64)[:, None] * rng.uniform(0.5, 1) * np.ones((64, 64))
            light = rng.integers(40, 215)
            noise = rng.integers(0, 40, (64, 64, 3))
            name = f"{split}{number}"
            _save(folder / "images" / split / f"{name}.png", (slope[..., None] * light + noise).astype(np.uint8))
            _save(folder / "depth" / SPLITS[split] / f"{name}.png", (1000 + 5000 * slope).astype(np.uint16))
            rows.append(f"{name}.png,{'bright' if number % 2 else 'dark'}")
    (folder / "kinds.csv").write_text("\n".join(rows) + "\n")
    (folder / "data.yaml").write_text(DATA)
    return folder


def _save(path: Path, array: NDArray[np.generic]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_supernet(space: Space, path: Path, seed: int = 0) -> Path:
    """Fresh weights for a space, as `edgemtl train` writes them; the path."""
    torch.manual_seed(seed)
    header = {"space": space.name, "fingerprint": space.fingerprint, "tasks": [task.name for task in space.tasks]}
    save_supernet(Supernet.of(space), path, header)
    return path
