from __future__ import annotations

import numpy as np
import pytest
import torch

from edgemtl.data import Batch
from edgemtl.nas.evaluation.by_image import by_image
from edgemtl.nas.evaluation.stopping import ByImage
from edgemtl.tasks import make_task, parse_floor, ratio_of_counts
from edgemtl.train import Scorer

TASKS = (make_task("depth", "depth"), make_task("semseg", "segmentation", 3), make_task("edges", "edges"))
SHAPE = (4, 6, 8)


@pytest.fixture
def batch() -> Batch:
    """Four images: labels of all tasks in part of the pixels, and of segmentation none in the last."""
    rng = np.random.default_rng(0)
    targets = {
        "depth": rng.uniform(1, 5, SHAPE).astype(np.float32),
        "semseg": rng.integers(0, 3, SHAPE),
        "edges": (rng.random(SHAPE) < 0.2).astype(np.float32),
    }
    masks = {task.name: rng.random(SHAPE) < 0.8 for task in TASKS}
    masks["semseg"][-1] = False
    return Batch(np.zeros((4, 3, 6, 8), np.float32), targets, masks)


def test_what_images_tell_adds_up_to_what_they_are_scored_with(batch: Batch) -> None:
    torch.manual_seed(0)
    outputs = {
        task.name: {output.name: torch.randn(4, output.channels, 6, 8) for output in task.outputs} for task in TASKS
    }
    floors = [parse_floor(text, TASKS) for text in ("semseg>0.1", "edges=5%", "depth=5%")]
    part = by_image(outputs, batch, floors)
    assert part.scores.keys() == {"depth"} and part.counts.keys() == {"semseg", "edges"}
    scorer = Scorer(TASKS)
    scorer.update(outputs, batch)
    for floor in floors[:2]:
        counts = part.counts[floor.task.name]
        assert len(counts) == 4
        whole = scorer.compute()[floor.task.name][floor.metric.name]
        assert ratio_of_counts(floor.metric, sum(counts)) == pytest.approx(whole, abs=1e-6)
    assert not part.counts["semseg"][-1].any()
    twice = ByImage.joined([part, part])
    assert len(twice.scores["depth"]) == len(twice.counts["edges"]) == 8
