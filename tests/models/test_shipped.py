"""The supernets that ship are as good as when they were trained."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgemtl.data import open_source
from edgemtl.files.seals import sha256
from edgemtl.files.share import find_shared
from edgemtl.models import Supernet, load_supernet
from edgemtl.models.nets.supernet import recalibrate
from edgemtl.nas.evaluation import find_sensitivity
from edgemtl.spaces import load_space
from edgemtl.train import batches_of, evaluate

IMAGES = 32


def test_the_smallest_design_of_the_shipped_cnn_has_learnt() -> None:
    """23.2 degrees on 96 validation images; with weights of another layer in place of its own it has more than 50."""
    source = open_source("scenes", (192, 256))
    space = load_space("cnn", source.tasks)
    supernet = Supernet.of(space)
    path = find_shared("nas/supernets", "cnn-scenes.safetensors")
    assert path is not None
    load_supernet(supernet, path, space.fingerprint)
    net = supernet.extract(space.smallest())
    recalibrate(net, [torch.from_numpy(batch.image) for batch in batches_of(source.split("train"), 16, IMAGES)])
    scores = evaluate(net, source.tasks, list(batches_of(source.split("validation"), 16, IMAGES, tasks=source.tasks)))
    assert scores["normals"]["mean_angle"] < 30
    assert scores["depth"]["rmse"] < 1.3


@pytest.mark.parametrize("name", ["cnn", "moe-vit"])
def test_the_shipped_weights_are_those_of_the_space(name: str) -> None:
    space = load_space(name, open_source("scenes", (192, 256)).tasks)
    path = find_shared("nas/supernets", f"{name}-scenes.safetensors")
    assert path is not None
    load_supernet(Supernet.of(space), path, space.fingerprint)


def test_the_shipped_sensitivity_map_is_that_of_the_weights_and_the_data(tmp_path: Path) -> None:
    path = find_shared("nas/supernets", "cnn-scenes.safetensors")
    assert path is not None
    fingerprint = open_source("scenes", (192, 256)).fingerprint
    assert find_sensitivity(path, tmp_path, {"supernet_sha256": sha256(path), "data_fingerprint": fingerprint})
