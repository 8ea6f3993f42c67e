"""The order in which channels go when what reads them makes up for those that went before."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgemtl.models import ModuleNet
from edgemtl.nas.prune.compensation import RIDGE, input_products
from edgemtl.nas.prune.cut import Group, Member
from edgemtl.nas.prune.elimination import elimination_order
from edgemtl.tasks import Output, make_task

SIZE = (6, 6)
CHANNELS = tuple(range(6))


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3), nn.Conv2d(6, 2, 1, bias=False)
        self.last = nn.Linear(6, 2)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        seen = self.first(image).relu()
        joined = torch.cat([self.second(seen).relu().mean((2, 3)), self.third(seen).relu().mean((2, 3))], 1)
        return {"values": self.last(joined)}


@pytest.fixture
def net() -> ModuleNet:
    torch.manual_seed(0)
    task = make_task("values", "raw", 2, (), [Output("values", 2, dense=False, sizes=(2,))])
    return ModuleNet(Toy(), [task], SIZE).eval()


def group() -> Group:
    members = [Member(f"module.{name}", name == "first", CHANNELS, CHANNELS) for name in ("first", "second", "third")]
    return Group("first", 6, ("values",), (tuple(members),), ("first",))


def lost(square: NDArray[np.float64], weights: NDArray[np.float64], gone: list[int]) -> float:
    """The least of |X(W - V)|² and the ridge's share, over weights V that are zero in the rows that are gone."""
    damped = square + RIDGE * square.diagonal().mean() * np.eye(len(square))
    stay = [row for row in range(len(square)) if row not in gone]
    best = np.linalg.solve(damped[np.ix_(stay, stay)], damped[stay] @ weights)
    apart = weights.copy()
    apart[stay] -= best
    return float((apart * (damped @ apart)).sum())


def test_the_next_channel_to_go_is_the_one_without_which_least_is_lost(net: ModuleNet) -> None:
    """By trying each one, with all weights solved for anew."""
    images = torch.randn(40, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    readers = {"module.second": 9, "module.third": 1}
    products = input_products(net, list(readers), images)
    gradients = {"module.second": torch.tensor([1.0, 4.0, 0.0, 0.5]), "module.third": torch.tensor([2.0, 3.0])}
    order = elimination_order(net, group(), products, gradients)
    assert order is not None and sorted(order) == [*CHANNELS]
    matrices = {}
    for name in readers:
        parameters = dict(net.get_submodule(name).named_parameters())
        parts = [parameters["weight"].detach().flatten(1)]
        parts += [parameters["bias"].detach()[:, None]] if "bias" in parameters else []
        matrices[name] = (torch.cat(parts, 1).T.double() * gradients[name].double().sqrt()).numpy()
    gone: list[int] = []
    for channel in order[:0:-1]:
        totals = {
            tried: sum(
                lost(
                    products[name].numpy(), matrices[name], [each * c + k for c in (*gone, tried) for k in range(each)]
                )
                for name, each in readers.items()
            )
            for tried in CHANNELS
            if tried not in gone
        }
        assert channel == min(totals, key=lambda tried: totals[tried])
        gone.append(channel)


def test_what_no_fit_makes_up_for_has_no_such_order(net: ModuleNet) -> None:
    images = torch.randn(20, 3, *SIZE, generator=torch.Generator().manual_seed(1))
    products = input_products(net, ["module.second"], images)
    assert elimination_order(net, group(), products, {"module.second": torch.ones(4)}) is None
    assert elimination_order(net, replace(group(), step=2), products, {"module.second": torch.ones(4)}) is None
