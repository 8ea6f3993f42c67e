from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from edgemtl.data import Sample, collate
from edgemtl.data.sample import require_split
from edgemtl.errors import UserError
from edgemtl.files.images import IMAGE_MEAN, IMAGE_STD
from edgemtl.tasks import make_task

TASKS = (
    make_task("semseg", "segmentation", 4),
    make_task("normals", "normals"),
    make_task("label", "classification", 9),
    make_task("values", "regression", 2),
)


def sample(seed: int, height: int = 6, width: int = 5) -> Sample:
    rng = np.random.default_rng(seed)
    targets: dict[str, NDArray[Any]] = {
        "semseg": rng.integers(0, 4, (height, width)),
        "normals": rng.standard_normal((height, width, 3)).astype(np.float32),
        "label": np.asarray(seed, np.int64),
        "values": np.array([seed, 2.0], np.float32),
    }
    masks = {name: rng.random(target.shape[:2] if target.ndim > 1 else ()) < 0.5 for name, target in targets.items()}
    return Sample(
        rng.integers(0, 256, (height, width, 3), np.uint8), targets, {n: np.asarray(m) for n, m in masks.items()}
    )


def test_collate_keeps_every_number_in_its_place() -> None:
    samples = [sample(3), sample(4), sample(5)]
    batch = collate(samples, TASKS)
    assert batch.image.shape == (3, 3, 6, 5)
    assert batch.image.dtype == np.float32
    for n, one in enumerate(samples):
        for channel in range(3):
            expected = (one.image[2, 4, channel] / 255 - IMAGE_MEAN[channel]) / IMAGE_STD[channel]
            assert batch.image[n, channel, 2, 4] == pytest.approx(expected, abs=1e-5)
        assert np.array_equal(batch.targets["semseg"][n], one.targets["semseg"])
        assert np.array_equal(batch.targets["normals"][n, :, 1, 3], one.targets["normals"][1, 3])
        assert np.array_equal(batch.masks["normals"][n], one.masks["normals"])
    assert batch.targets["label"].tolist() == [3, 4, 5]
    assert batch.targets["values"].shape == (3, 2)
    assert batch.masks["label"].shape == (3,)


def test_collate_refuses_what_cannot_be_stacked() -> None:
    with pytest.raises(UserError, match="at least one"):
        collate([])
    with pytest.raises(UserError, match="one size"):
        collate([sample(1), sample(1, height=7)])
    other = sample(1)
    with pytest.raises(UserError, match="same tasks"):
        collate([sample(1), Sample(other.image, {"semseg": other.targets["semseg"]}, other.masks)], TASKS)


def test_an_unknown_split_is_answered_with_the_nearest() -> None:
    assert require_split("test") == "test"
    with pytest.raises(UserError, match="did you mean validation"):
        require_split("valid")
