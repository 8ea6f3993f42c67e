from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
from small import designs, difference, pictures, scrambled, small_space
from small_world import VIT

from edgemtl.models import MultiTaskNet, prunable_channels
from edgemtl.nas import Space
from edgemtl.nas._groups import Group, cut, net_groups
from edgemtl.tasks import make_task

TASKS = (make_task("semseg", "segmentation", classes=("wall", "floor")), make_task("kind", "classification", 3))


def net_of(space: Space, seed: int = 0) -> MultiTaskNet:
    torch.manual_seed(seed)
    return scrambled(space.supernet(), seed).extract(space.largest())


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> MultiTaskNet:
    return net_of(small_space(tmp_path_factory.mktemp("space")))


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> MultiTaskNet:
    return net_of(small_space(tmp_path_factory.mktemp("space"), TASKS, VIT))


def silenced(net: MultiTaskNet, group: Group, channel: int) -> MultiTaskNet:
    """The net with a channel of every part of a group at zero wherever it is read."""
    made = copy.deepcopy(net)
    with torch.no_grad():
        for members in group.parts:
            for m in members:
                weight = made.get_submodule(m.module).weight
                for place, its in zip(m.places, m.channels, strict=True):
                    if its == channel and not m.outputs:
                        weight[:, place] = 0
    return made


def everything_but(group: Group, channel: int) -> dict[str, list[list[int]]]:
    return {group.name: [[c for c in range(group.size) if c != channel] for _ in group.parts]}


@pytest.mark.parametrize("which", ["small", "experts"])
def test_a_channel_that_nobody_reads_can_be_cut_and_nothing_changes(which: str, request: pytest.FixtureRequest) -> None:
    net = request.getfixturevalue(which)
    image = pictures(1, net.input_size)
    groups = net_groups(net)
    assert sorted(name for group in groups for name in group.convolutions) == sorted(prunable_channels(net.plan))
    for group in groups:
        narrow = cut(net, groups, everything_but(group, 3))
        assert difference(narrow(image), silenced(net, group, 3)(image)) < 1e-4, group.name


def test_a_cut_net_has_the_shapes_of_its_plan(small: MultiTaskNet) -> None:
    groups = net_groups(small)
    kept = {g.name: [sorted(torch.randperm(g.size)[: 1 + g.size // 2].tolist()) for _ in g.parts] for g in groups}
    narrow = cut(small, groups, kept)
    fresh = MultiTaskNet(narrow.plan, small.tasks)
    assert {n: v.shape for n, v in narrow.state_dict().items()} == {n: v.shape for n, v in fresh.state_dict().items()}
    fresh.load_state_dict(narrow.state_dict())
    image = pictures(2, small.input_size)
    assert difference(fresh.eval()(image), narrow(image)) == 0


def test_the_tasks_that_a_group_reaches_are_those_that_change_with_it(small: MultiTaskNet) -> None:
    image = pictures(1, small.input_size)
    before = small(image)
    for group in net_groups(small):
        after = silenced(small, group, 0)(image)
        changed = [name for name, value in before.items() if not torch.equal(value, after[name])]
        assert set(changed) <= set(group.tasks)
        own = tuple(task.name for task in small.tasks if group.name.startswith(f"{task.name}_"))
        assert group.name == "last.conv" or group.tasks == (own or tuple(task.name for task in small.tasks))


def test_every_design_has_groups_that_cover_what_may_be_narrowed(tmp_path: Path) -> None:
    space = small_space(tmp_path)
    supernet = space.supernet()
    for design in designs(space, 3):
        net = supernet.extract(design)
        named = [name for group in net_groups(net) for name in group.convolutions]
        assert sorted(named) == sorted(prunable_channels(net.plan))
