from __future__ import annotations

import itertools

import pytest
import torch
from small import TASKS, difference, pictures
from torch import fx

from edgemtl.errors import UserError
from edgemtl.models import MultiTaskNet, recalibrate
from edgemtl.spaces import Space
from edgemtl.tasks import by_tensor

SIZE = (32, 64)
NAMES = [task.name for task in TASKS]


@pytest.fixture(scope="module")
def net(space: Space) -> MultiTaskNet:
    torch.manual_seed(0)
    net = MultiTaskNet(space.largest().plan, TASKS)
    recalibrate(net, [pictures(4, SIZE)])
    return net


def test_outputs_are_one_raw_tensor_a_task(net: MultiTaskNet) -> None:
    with torch.no_grad():
        outputs = by_tensor(net(pictures(2, SIZE)))
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "semseg": (2, 3, 32, 64),
        "depth": (2, 1, 32, 64),
        "kind": (2, 4),
    }
    assert net.input_size == SIZE
    assert any(float(value.min()) < 0 for value in outputs.values())  # nothing squashed, nothing clipped


@pytest.mark.parametrize("wanted", [list(s) for n in (1, 2, 3) for s in itertools.permutations(NAMES, n)], ids=str)
def test_a_subset_gives_the_same_outputs_from_the_same_parameters(net: MultiTaskNet, wanted: list[str]) -> None:
    part = net.subset(wanted)
    image = pictures(2, SIZE, 3)
    with torch.no_grad():
        whole, some = by_tensor(net(image)), by_tensor(part(image))
    assert list(some) == wanted
    assert difference(some, {name: whole[name] for name in wanted}) == 0
    mine = dict(net.named_parameters())
    assert all(parameter is mine[name] for name, parameter in part.named_parameters())
    assert {task for task in part.block_tasks.values() if task is not None} == set(wanted)


def test_an_unknown_task_is_answered_with_the_known_ones(net: MultiTaskNet) -> None:
    with pytest.raises(UserError, match=r"'dept'.*did you mean depth"):
        net.subset(["dept"])


def test_torch_fx_traces_it(net: MultiTaskNet) -> None:
    traced = fx.symbolic_trace(net)
    image = pictures(2, SIZE, 4)
    with torch.no_grad():
        assert difference(by_tensor(traced(image)), by_tensor(net(image))) == 0


def test_every_block_can_be_seen(net: MultiTaskNet) -> None:
    image = pictures(1, SIZE)
    features = net.run_all(image)
    assert set(features) == {"image", *net.block_tasks}
    assert tuple(features["c_2"].shape) == (1, 24, 4, 8)
    assert tuple(features["last"].shape) == (1, 40, 2, 4)
