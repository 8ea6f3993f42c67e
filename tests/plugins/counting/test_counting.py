"""A kind of task with tensors of different rank, ragged labels and suppression, plugged in from one folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from plugged import install

from edgemtl.errors import UserError
from edgemtl.tasks import KINDS, Target, Task, find_kind, kind_of, make_task
from edgemtl.testing import KindConformance

CLASSES = ("car", "dog")


@pytest.fixture(scope="module", autouse=True)
def plugged_in(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The kind as an installed package brings it: by an entry point."""
    site = tmp_path_factory.mktemp("site")
    install(site, "edgemtl.kinds", "counting = counting:KIND", module=None)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(Path(__file__).parents[1]))
        patch.syspath_prepend(str(site))
        yield
    find_kind.cache_clear()


def boxes_of(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.float32]:
    """Boxes of some pixels each, on a grid, so that none covers another's centre."""
    rows, columns = np.mgrid[4 : size[0] - 4 : 8, 4 : size[1] - 4 : 8]
    centres = np.stack([columns.ravel(), rows.ravel()], axis=1)
    chosen = centres[rng.permutation(len(centres))[: rng.integers(1, 5)]]
    return np.concatenate([rng.integers(0, 2, (len(chosen), 1)), chosen - 2, chosen + 2], axis=1).astype(np.float32)


class TestCounting(KindConformance):
    """The suite that every kind passes."""

    @property
    def task(self) -> Task:  # type: ignore[override]
        return make_task("cars", "counting", classes=CLASSES)

    def label(self, rng: np.random.Generator) -> Target:
        return boxes_of(rng, self.image_size), np.asarray(True)

    def outputs_of(self, label: Target) -> Mapping[str, NDArray[np.float32]]:
        from counting.learning import bells

        heat = bells(torch.from_numpy(label[0]), torch.zeros(2, *self.image_size)).clamp(1e-4, 1 - 1e-4).logit()
        counts = np.bincount(label[0][:, 0].astype(int), minlength=2).astype(np.float32)
        return {"heat": heat[None].numpy(), "count": counts[None]}


def test_it_is_found_among_the_kinds() -> None:
    assert "counting" in KINDS.names()
    task = make_task("cars", "counting", classes=CLASSES)
    assert [(output.name, output.dense) for output in task.outputs] == [("heat", True), ("count", False)]
    with pytest.raises(UserError, match="unknown task kind 'countign': did you mean counting"):
        make_task("cars", "countign", classes=CLASSES)


def test_a_prediction_holds_the_centres_in_pixels_of_the_photo() -> None:
    task = make_task("cars", "counting", classes=CLASSES)
    heat = np.full((1, 2, 10, 20), -8, np.float32)
    heat[0, 1, 4, 6:8] = 3, 4  # two neighbours: the larger one stays
    prediction = kind_of(task).decode(task, {"heat": heat, "count": np.array([[-0.2, 1.1]], np.float32)}, (20, 40))
    np.testing.assert_allclose(prediction["points"], [[1, 14.5, 8.5, 0.982]], atol=1e-3)
    np.testing.assert_allclose(prediction["counts"], [0, 1.1], atol=1e-6)
    assert kind_of(task).summarize(task, prediction).words == "0.0 car, 1.1 dog"
