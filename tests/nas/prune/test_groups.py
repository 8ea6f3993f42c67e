from __future__ import annotations

import copy
import random
from contextlib import closing
from pathlib import Path

import pytest
import torch
from grid_world import GRID
from small import designs, difference, pictures, scrambled, small_space
from small_world import VIT

from edgemtl.errors import UserError
from edgemtl.models import MultiTaskNet, Supernet
from edgemtl.nas.prune.groups import Group, cut_channels, net_groups
from edgemtl.profiling import count_graph
from edgemtl.runtime import open_engine
from edgemtl.spaces import Space, prunable_channels, with_channels
from edgemtl.targets import emit, find_target
from edgemtl.tasks import by_tensor, make_task

TASKS = (make_task("semseg", "segmentation", classes=("wall", "floor")), make_task("kind", "classification", 3))


def net_of(space: Space, seed: int = 0) -> MultiTaskNet:
    torch.manual_seed(seed)
    return scrambled(Supernet.of(space), seed).extract(space.largest())


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> MultiTaskNet:
    return net_of(small_space(tmp_path_factory.mktemp("space")))


@pytest.fixture(scope="module")
def experts(tmp_path_factory: pytest.TempPathFactory) -> MultiTaskNet:
    return net_of(small_space(tmp_path_factory.mktemp("space"), TASKS, VIT))


@pytest.fixture(scope="module")
def routed(tmp_path_factory: pytest.TempPathFactory) -> MultiTaskNet:
    """The same with one gate that is told the task."""
    conditioned = VIT.replace("top_k: [2]}", "top_k: [2], router: conditioned}")
    return net_of(small_space(tmp_path_factory.mktemp("space"), TASKS, conditioned))


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory) -> MultiTaskNet:
    """Two tasks that keep different blocks: some are shared, some copied."""
    space = small_space(tmp_path_factory.mktemp("space"), TASKS, GRID)
    torch.manual_seed(0)
    return scrambled(Supernet.of(space), 0).extract(space.random(random.Random(1)))


def silenced(net: MultiTaskNet, group: Group, channel: int) -> MultiTaskNet:
    """The net with a channel of every part of a group, its whole head in attention, at zero wherever it is read."""
    made = copy.deepcopy(net)
    with torch.no_grad():
        for members in group.parts:
            for m in members:
                weight = made.get_submodule(m.module).weight
                for position, its in zip(m.positions, m.channels, strict=True):
                    if its // group.step == channel // group.step and not m.outputs:
                        weight[:, position] = 0
    return made


def everything_but(group: Group, channel: int) -> dict[str, list[list[int]]]:
    rest = [c for c in range(group.size) if c // group.step != channel // group.step]
    return {group.name: [rest for _ in group.parts]}


@pytest.mark.parametrize("which", ["small", "experts", "grid"])
def test_a_channel_that_nobody_reads_can_be_cut_and_nothing_changes(which: str, request: pytest.FixtureRequest) -> None:
    net = request.getfixturevalue(which)
    image = pictures(1, net.input_size)
    groups = net_groups(net)
    assert sorted(name for group in groups for name in group.convolutions) == sorted(prunable_channels(net.plan))
    for group in groups:
        if group.name == "patches.proj":
            continue  # what layer norms see of a silent channel is not what they see of none
        narrow = cut_channels(net, groups, everything_but(group, 3))
        assert difference(by_tensor(narrow(image)), by_tensor(silenced(net, group, 3)(image))) < 1e-4, group.name


def half(group: Group) -> list[list[int]]:
    """About half the channels of every part, drawn at random; whole heads in attention."""
    count, step = group.size // group.step, group.step
    drawn = [torch.randperm(count)[: 1 + (count - 1) // 2].tolist() for _ in group.parts]
    return [sorted(block * step + index for block in part for index in range(step)) for part in drawn]


@pytest.mark.parametrize("which", ["small", "experts", "routed", "grid"])
def test_a_cut_net_has_the_shapes_of_its_plan_and_exports(
    which: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    net = request.getfixturevalue(which)
    groups = net_groups(net)
    narrow = cut_channels(net, groups, {group.name: half(group) for group in groups})
    fresh = MultiTaskNet(narrow.plan, net.tasks)
    assert {n: v.shape for n, v in narrow.state_dict().items()} == {n: v.shape for n, v in fresh.state_dict().items()}
    fresh.load_state_dict(narrow.state_dict())
    image = pictures(1, net.input_size)
    expected = by_tensor(narrow(image))
    assert difference(by_tensor(fresh.eval()(image)), expected) == 0
    find_target("onnxruntime").build(narrow, {"engine": "fp32"}, None, tmp_path)
    with closing(open_engine(tmp_path)) as session:
        given = by_tensor(session.run(image.numpy(), [task.name for task in net.tasks]))
        assert difference({name: torch.from_numpy(value) for name, value in given.items()}, expected) < 1e-5
    counted = count_graph(emit(narrow)).total
    assert narrow.plan.cost().flops == counted.flops
    constants = count_graph(emit(net)).total.params - net.plan.cost().params
    assert narrow.plan.cost().params + constants == counted.params


def test_heads_and_the_width_of_tokens_are_cut_in_every_layer_alike(experts: MultiTaskNet) -> None:
    groups = {group.name: group for group in net_groups(experts)}
    assert groups["b1.attention"].step == 8
    assert groups["b1.attention"].tasks == groups["patches.proj"].tasks == ("semseg", "kind")
    kept = [0, 5, 6, 15]
    narrow = cut_channels(experts, groups.values(), {"patches.proj": [kept], "b2.attention": [list(range(8, 16))]})
    before, after = dict(experts.named_parameters()), dict(narrow.named_parameters())
    assert torch.equal(after["blocks.b2.norm2.weight"], before["blocks.b2.norm2.weight"][kept])
    assert torch.equal(after["blocks.b2.queries.weight"], before["blocks.b2.queries.weight"][8:16, kept])
    assert torch.equal(after["blocks.b2.proj.weight"], before["blocks.b2.proj.weight"][kept][:, 8:16])
    assert torch.equal(
        after["blocks.b2.mixture.routers.kind.weight"], before["blocks.b2.mixture.routers.kind.weight"][:, kept]
    )
    assert torch.equal(
        after["blocks.b2.mixture.experts.1.second.bias"], before["blocks.b2.mixture.experts.1.second.bias"][kept]
    )
    assert torch.equal(after["blocks.top.conv.weight"], before["blocks.top.conv.weight"][:, kept])
    assert [block.heads for block in narrow.plan.blocks if block.heads] == [2, 1, 1]
    with pytest.raises(UserError, match=r"b2.attention cannot have 12 channels: a head has 8"):
        with_channels(experts.plan, {"b2.attention": 12})


def test_the_tasks_that_a_group_reaches_are_those_that_change_with_it(small: MultiTaskNet) -> None:
    image = pictures(1, small.input_size)
    before = by_tensor(small(image))
    for group in net_groups(small):
        after = by_tensor(silenced(small, group, 0)(image))
        changed = [name for name, value in before.items() if not torch.equal(value, after[name])]
        assert set(changed) <= set(group.tasks)
        own = tuple(task.name for task in small.tasks if group.name.startswith(f"{task.name}_"))
        assert group.name == "last.conv" or group.tasks == (own or tuple(task.name for task in small.tasks))


def test_every_design_has_groups_that_cover_what_may_be_narrowed(tmp_path: Path) -> None:
    space = small_space(tmp_path)
    supernet = Supernet.of(space)
    for design in designs(space, 3):
        net = supernet.extract(design)
        named = [name for group in net_groups(net) for name in group.convolutions]
        assert sorted(named) == sorted(prunable_channels(net.plan))
