"""Cuts that are made up for in closed form, from products of what layers of the whole net read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgemtl.models import ModuleNet
from edgemtl.nas.prune import compensation
from edgemtl.nas.prune.compensation import RIDGE, compensate, input_products
from edgemtl.nas.prune.cut import Side, keep_positions
from edgemtl.tasks import Output, make_task

SIZE = (8, 12)
READERS = ("module.second", "module.last")


class Toy(nn.Module):
    """Two convolutions and a linear layer; channel 5 of the first is its first, channel 3 of the second its second."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.Conv2d(6, 4, 3, padding=1, bias=False)
        self.last = nn.Linear(4, 2)
        with torch.no_grad():
            self.first.weight[5], self.first.bias[5] = self.first.weight[0], self.first.bias[0]  # type: ignore[index]
            self.second.weight[3] = self.second.weight[1]

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"values": self.last(self.second(self.first(image).relu()).relu().mean((2, 3)))}


@pytest.fixture
def whole() -> ModuleNet:
    torch.manual_seed(0)
    task = make_task("values", "raw", 2, (), [Output("values", 2, dense=False, sizes=(2,))])
    return ModuleNet(Toy(), [task], SIZE).eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(48, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def cut(first: Sequence[int], second: Sequence[int]) -> dict[Side, list[int]]:
    """The convolutions, and what reads them, with these channels alone."""
    return {
        ("module.first", "outputs"): [*first],
        ("module.second", "inputs"): [*first],
        ("module.second", "outputs"): [*second],
        ("module.last", "inputs"): [*second],
    }


def cut_copy(whole: ModuleNet, kept: dict[Side, list[int]]) -> ModuleNet:
    narrow = whole.copy()
    keep_positions(narrow, kept)
    return narrow


def values(net: ModuleNet, images: Tensor) -> Tensor:
    with torch.no_grad():
        return net(images)["values"]["values"]


def test_channels_that_others_repeat_are_made_up_for(whole: ModuleNet, images: Tensor) -> None:
    kept = cut([0, 1, 2, 3, 4], [0, 1, 2])
    narrow = cut_copy(whole, kept)
    expected, before = values(whole, images), values(narrow, images)
    compensate(narrow, whole, kept, input_products(whole, READERS, images))
    assert (before - expected).norm() > 0.03 * expected.norm(), "they are missed"
    assert (values(narrow, images) - expected).norm() < 1e-2 * expected.norm()


def test_weights_are_those_of_ridge_regression(whole: ModuleNet, images: Tensor) -> None:
    """By numpy, from all rows themselves, of a layer that lost inputs and outputs."""
    kept = cut([1, 2, 4], [0, 2])
    narrow = cut_copy(whole, kept)
    products = input_products(whole, ["module.second"], images)
    compensate(narrow, whole, kept, products)
    with torch.no_grad():
        read = whole.module.first(images).relu()  # type: ignore[operator]
    rows = nn.functional.unfold(read, 3, padding=1).transpose(1, 2).reshape(-1, 54).numpy().astype(np.float64)
    weights = whole.get_parameter("module.second.weight").detach().numpy().reshape(4, -1)[[0, 2]].T.astype(np.float64)
    stay = [9 * channel + each for channel in (1, 2, 4) for each in range(9)]
    square = rows[:, stay].T @ rows[:, stay]
    away = RIDGE * square.diagonal().mean() * np.eye(27)
    expected = np.linalg.solve(square + away, rows[:, stay].T @ rows @ weights + away @ weights[stay])
    given = narrow.get_parameter("module.second.weight").detach().numpy().reshape(2, -1).T
    assert np.abs(given - expected).max() < 1e-4
    assert torch.equal(narrow.get_parameter("module.last.weight"), whole.get_parameter("module.last.weight")[:, [0, 2]])


def test_a_layer_that_lost_nothing_or_is_too_large_stays(
    whole: ModuleNet, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compensation, "MOST_INPUTS", 53)
    products = input_products(whole, READERS, images)
    assert set(products) == {"module.last"}
    narrow = whole.copy()
    compensate(narrow, whole, {}, products)
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in narrow.state_dict().items())
