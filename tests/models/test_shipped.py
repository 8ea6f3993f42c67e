"""The supernets that ship are as good as when they were trained."""

from __future__ import annotations

import torch

from edgemtl.data import open_source
from edgemtl.files.share import find_shared
from edgemtl.models import Supernet, load_supernet
from edgemtl.models.nets.supernet import recalibrate
from edgemtl.spaces import load_space
from edgemtl.train import batches_of, evaluate

IMAGES = 32


def test_the_smallest_design_of_the_shipped_cnn_has_learnt() -> None:
    """32.6 degrees on all test images; with weights of another layer in place of its own it has more than 50."""
    source = open_source("scenes", (192, 256))
    space = load_space("cnn", source.tasks)
    supernet = Supernet.of(space)
    path = find_shared("nas/supernets", "cnn-scenes.safetensors")
    assert path is not None
    load_supernet(supernet, path, space.fingerprint)
    net = supernet.extract(space.smallest())
    recalibrate(net, [torch.from_numpy(batch.image) for batch in batches_of(source.split("train"), 16, IMAGES)])
    scores = evaluate(net, source.tasks, list(batches_of(source.split("validation"), 16, IMAGES, tasks=source.tasks)))
    assert scores["normals"]["mean_angle"] < 42
    assert scores["depth"]["rmse"] < 1.6
