"""A small world to search in: a space of one's own, a few pictures, and a supernet that nobody trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from landscape import write_space
from PIL import Image

from edgemtl.data import open_source
from edgemtl.models import save_supernet
from edgemtl.nas import SearchRequest, Space, load_space

DATA = """\
images: {train: images/train, validation: images/val, test: images/test}
tasks:
  depth: {kind: depth, files: "depth/{split}/{name}.png", scale: 0.001}
  kind: {kind: classification, csv: kinds.csv, image: file, column: kind, classes: [dark, bright]}
"""
COUNTS = {"train": 6, "val": 3, "test": 3}
SPLITS = {"train": "train", "val": "validation", "test": "test"}
Ask = Callable[..., SearchRequest]


def write_data(folder: Path) -> Path:
    """Pictures of a slope, with its depth and whether it is bright."""
    rows = ["file,kind"]
    rng = np.random.default_rng(0)
    for split, count in COUNTS.items():
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


def _save(path: Path, array: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_supernet(space: Space, path: Path, seed: int = 0) -> Path:
    """Fresh weights for a space, as `edgemtl train` writes them."""
    torch.manual_seed(seed)
    header = {"space": space.name, "identity": space.identity, "tasks": [task.name for task in space.tasks]}
    save_supernet(space.supernet(), path, header)
    return path


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`nas/tiny.yaml`, `photos/` and `supernet.safetensors` in one folder."""
    home = tmp_path_factory.mktemp("home")
    write_space(home)
    source = open_source(str(write_data(home / "photos")), (64, 64))
    write_supernet(load_space(str(home / "nas" / "tiny.yaml"), source.tasks), home / "supernet.safetensors")
    return home


@pytest.fixture
def ask(home: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Requests for searches in that folder; the working directory is there."""
    monkeypatch.chdir(home)

    def request(out: Path, **changes: Any) -> SearchRequest:
        asked: dict[str, Any] = {
            "budgets": ("80%FLOPs",),
            "space": "tiny",
            "data": "photos",
            "evaluations": 4,
            "batch": 2,
            "supernet": home / "supernet.safetensors",
            "threads": 1,
        }
        return SearchRequest(out, **(asked | changes))

    return request
