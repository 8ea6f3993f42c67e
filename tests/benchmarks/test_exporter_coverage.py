"""Layers as nets of two tasks: a hundred, each with its mean beside it; what is refused must be so by name."""

from __future__ import annotations

from pathlib import Path

import _torch_nets
import numpy as np
import pytest
import torch
from _torch_nets import LAYERS
from exporter_coverage import SIZE, attempt, rows_of
from PIL import Image


def test_there_are_a_hundred_layers_and_each_is_a_net_of_two_tasks() -> None:
    assert len(LAYERS) == 100
    image = torch.rand(1, 3, *SIZE)
    for name in ("conv2d", "lstm", "grid_sample", "topk"):
        with torch.no_grad():
            first, second = (getattr(_torch_nets, name)().eval()(image) for _ in range(2))
        assert set(first) == {"layer", "mean"} and first["mean"].shape == (1, 8)
        assert torch.equal(first["layer"], second["layer"])


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_a_layer_is_exported(photo: Path) -> None:
    assert attempt("conv2d", photo) == {"why": "", "by_name": True}


def test_a_layer_that_is_refused_is_so_by_its_operator(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYERS, "relu", lambda: lambda features: torch.linalg.svdvals(features))
    refused = attempt("relu", photo)
    assert "svd" in refused["why"] and refused["by_name"]


def test_what_exports_is_counted_and_a_refusal_without_a_name_fails() -> None:
    results = {
        "one": {"why": "", "by_name": True},
        "two": {"why": "operator aten.x has no counterpart", "by_name": True},
        "three": {"why": "KeyError", "by_name": False},
    }
    rows = {row.name: row for row in rows_of(results, quick=False)}
    assert (rows["exported"].value, rows["exported"].least, rows["exported"].holds) == (1, 95, False)
    assert rows["refused_without_a_name"].holds is False
