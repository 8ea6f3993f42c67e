"""Layers of a narrower net, fitted to those of the whole one in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgemtl.models import ModuleNet
from edgemtl.nas.prune.cut import Side, keep_positions
from edgemtl.nas.prune.fitting import fitting_images
from edgemtl.nas.prune.reconstruction import RIDGES, reconstruct
from edgemtl.own import SelfLabelled
from edgemtl.progress import Progress
from edgemtl.tasks import Output, make_task

SIZE = (8, 12)


class Toy(nn.Module):
    """Two convolutions, and a linear layer on what is left of their positions; channel 5 of the first is its first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.Conv2d(6, 4, 3, padding=1, bias=False)
        self.norm, self.last = nn.BatchNorm2d(4), nn.Linear(4, 2)
        with torch.no_grad():
            self.first.weight[5], self.first.bias[5] = self.first.weight[0], self.first.bias[0]  # type: ignore[index]

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"values": self.last(self.norm(self.second(self.first(image).relu())).relu().mean((2, 3)))}


def net_of(module: nn.Module) -> ModuleNet:
    task = make_task("values", "raw", 2, (), [Output("values", 2, dense=False, sizes=(2,))])
    return ModuleNet(module, [task], SIZE).eval()


def cut_copy(whole: ModuleNet, kept: dict[Side, list[int]]) -> ModuleNet:
    narrow = whole.copy()
    keep_positions(narrow, kept)
    return narrow


def cut(channels: Sequence[int]) -> dict[Side, list[int]]:
    """The first convolution and what reads it with these channels alone."""
    return {("module.first", "outputs"): [*channels], ("module.second", "inputs"): [*channels]}


def values(net: ModuleNet, images: Tensor) -> Tensor:
    with torch.no_grad():
        return net(images)["values"]["values"]


@pytest.fixture
def whole() -> ModuleNet:
    torch.manual_seed(0)
    return net_of(Toy())


@pytest.fixture
def images() -> Tensor:
    return torch.randn(48, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def test_a_channel_that_another_one_repeats_is_made_up_for(whole: ModuleNet, images: Tensor) -> None:
    kept = cut([0, 1, 2, 3, 4])
    narrow = cut_copy(whole, kept)
    expected, before = values(whole, images), values(narrow, images)
    reconstruct(narrow, whole, kept, images)
    assert (before - expected).norm() > 0.02 * expected.norm(), "it is missed"
    assert (values(narrow, images) - expected).norm() < 1e-3 * expected.norm()


def test_weights_are_those_of_ridge_regression(whole: ModuleNet, images: Tensor) -> None:
    """By numpy, of the first layer that reads what was cut: about its weights, on all images, by one of the ridges."""
    kept = cut([1, 2, 3])
    narrow = cut_copy(whole, kept)
    before = narrow.get_parameter("module.second.weight").detach().numpy().reshape(4, -1).astype(np.float64)
    reconstruct(narrow, whole, kept, images)
    with torch.no_grad():
        wanted = whole.module.second(whole.module.first(images).relu())  # type: ignore[operator]
        read = narrow.module.first(images).relu()  # type: ignore[operator]
    rows = nn.functional.unfold(read, 3, padding=1).transpose(1, 2).reshape(-1, 27).numpy().astype(np.float64)
    targets = wanted.flatten(2).transpose(1, 2).reshape(-1, 4).numpy().astype(np.float64)
    square, given = rows.T @ rows, narrow.get_parameter("module.second.weight").detach().numpy().reshape(4, -1)
    solutions = []
    for ridge in RIDGES:
        away = ridge * square.diagonal().mean() * np.eye(27)
        solutions.append(np.linalg.solve(square + away, rows.T @ targets + away @ before.T).T)
    assert min(float(np.abs(given - each).max()) for each in solutions) < 1e-4


def test_what_cannot_be_fitted_stays(images: Tensor) -> None:
    torch.manual_seed(0)

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.depthwise = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, padding=1, groups=6)
            self.twice, self.last = nn.Conv2d(6, 6, 1), nn.Linear(6, 2)
            self.tied, self.named = nn.Linear(6, 2), nn.Linear(2, 2)
            self.tied.weight = self.last.weight

        def forward(self, image: Tensor) -> dict[str, Tensor]:
            seen = self.twice(self.twice(self.depthwise(self.first(image).relu())).relu()).mean((2, 3))
            return {"values": self.named(input=self.last(seen) + self.tied(seen))}

    whole = net_of(Odd())
    narrow = whole.copy()
    with torch.no_grad():
        for parameter in narrow.parameters():
            parameter.mul_(0.5)
    before = {name: parameter.detach().clone() for name, parameter in narrow.named_parameters()}
    reconstruct(narrow, whole, {}, images)
    changed = {name for name, parameter in narrow.named_parameters() if not torch.equal(parameter, before[name])}
    assert changed == {"module.first.weight", "module.first.bias"}


def test_each_layer_is_counted(whole: ModuleNet, images: Tensor) -> None:
    seen: list[Progress] = []
    kept = cut([0, 1])
    reconstruct(cut_copy(whole, kept), whole, kept, images, seen.append)
    assert [(each.done, each.total) for each in seen] == [(0, 3), (1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize(("size", "count"), [((8, 12), 2048), ((256, 256), 64), ((1024, 1024), 16)])
def test_images_are_as_many_as_their_size_allows(whole: ModuleNet, size: tuple[int, int], count: int) -> None:
    pictures = [np.full((4, 4, 3), 10 * number, np.uint8) for number in range(4)]
    splits: Any = {name: pictures for name in ("train", "calibration", "validation", "test")}
    source = SelfLabelled("pictures", splits, "content", size, whole.tasks, lambda image: {}, "whole")
    made = fitting_images(source)
    assert made.shape == (count, 3, *size) and torch.equal(made, fitting_images(source))
