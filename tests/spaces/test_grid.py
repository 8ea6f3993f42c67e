from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from grid import GRID, TASKS, grid_space
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from edgemtl.errors import UserError
from edgemtl.models import MultiTaskNet, Supernet, recalibrate
from edgemtl.spaces import KEEP, SKIP, Design, Space, load_space
from edgemtl.tasks import by_tensor, make_task


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return grid_space(tmp_path_factory.mktemp("grid"))


def masked(space: Space, **kept: set[str]) -> Design:
    """Every task keeps what is named for it, and nothing else."""
    return space.design({f"{task}.{position}": KEEP for task, positions in kept.items() for position in positions})


def by_batch(net: MultiTaskNet) -> MultiTaskNet:
    """Normalised with the batch's own statistics, as a supernet is."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
            module.track_running_stats = False
    return net


@pytest.mark.parametrize("seed", range(4))
def test_any_design_is_cut_exactly_out_of_the_supernet(tiny: Space, seed: int) -> None:
    torch.manual_seed(0)
    supernet, image = Supernet.of(tiny), torch.randn(2, 3, 64, 96)
    design = tiny.random(random.Random(seed))
    with torch.no_grad():
        expected, found = (
            by_tensor(supernet(image, design).outputs),
            by_tensor(by_batch(supernet.extract(design))(image)),
        )
    for task, value in expected.items():
        assert (found[task] - value).abs().max() < 1e-5


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_a_task_runs_what_it_would_run_alone(tiny: Space, seed: int) -> None:
    """Its blocks, its cost and its numbers do not depend on what other tasks keep."""
    design = tiny.random(random.Random(seed))
    for task in tiny.tasks:
        alone = load_space_of(tiny, task.name)
        same = alone.design({name: option for name, option in design.items() if name.startswith(f"{task.name}.")})
        path = design.plan.path([task.name])
        assert sorted(block.origin for block in path) == sorted(block.origin for block in same.plan.blocks)
        assert design.cost([task.name]).flops == same.cost().flops
    total = design.cost().flops
    assert max(design.cost([t.name]).flops for t in tiny.tasks) <= total
    assert total <= sum(design.cost([t.name]).flops for t in tiny.tasks)


def load_space_of(space: Space, task: str) -> Space:
    """The same space for one of its tasks."""
    tasks = tuple(each for each in space.tasks if each.name == task)
    choices = tuple(choice for choice in space.choices if choice.task in (None, task))
    return replace(space, tasks=tasks, choices=choices)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_every_block_of_a_design_leads_to_a_task(tiny: Space, seed: int) -> None:
    plan = tiny.random(random.Random(seed)).plan
    reached = {block.name for task in tiny.tasks for block in plan.path([task.name])}
    assert [block.name for block in plan.blocks if block.name not in reached] == []


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_designs_that_run_the_same_are_the_same(tiny: Space, seed: int) -> None:
    """What nothing leads from is skipped: turning it on again changes nothing."""
    design = tiny.random(random.Random(seed))
    assert tiny.design(dict(design)).key == design.key
    rng = random.Random(seed)
    name = rng.choice([choice.name for choice in tiny.choices if choice.options == (SKIP, KEEP)])
    turned = tiny.design({**design, name: KEEP if design[name] == SKIP else SKIP})
    assert (turned.key == design.key) == (turned.plan == design.plan)


def test_tasks_share_what_they_keep_alike_and_copy_the_rest(tiny: Space) -> None:
    alike = {"s1p0_1", "s1p1_1"}
    shared = masked(tiny, semseg={*alike, "read1"}, depth={*alike, "read1"})
    assert [b.name for b in shared.plan.blocks if b.origin in alike] == ["s1p0_1", "s1p1_1"]
    apart = masked(tiny, semseg={"s1p0_1", "s1p0_2"}, depth={"s1p0_2"})
    copies = {b.name: b.task for b in apart.plan.blocks if b.origin == "s1p0_2"}
    assert copies == {"s1p0_2__semseg": "semseg", "s1p0_2__depth": "depth"}
    assert apart.precision.keys() >= copies.keys()
    before = masked(tiny, semseg={"s1p0_1"}, depth={"s1p0_1", "s1p0_2"})
    assert [(b.name, b.task) for b in before.plan.blocks if b.name.startswith("s1p0")] == [
        ("s1p0_1", None),
        ("s1p0_2", "depth"),
    ]


def test_copies_take_the_supernets_weights_and_precision(tiny: Space) -> None:
    torch.manual_seed(0)
    supernet = Supernet.of(tiny)
    design = masked(tiny, semseg={"s1p0_1", "s1p0_2"}, depth={"s1p0_2"})
    net = supernet.extract(tiny.design({**design, "s1p0_2.precision": "int8"}))
    weights = dict(net.named_parameters())
    one, other = (weights[f"blocks.s1p0_2__{task}.dense.conv.weight"] for task in ("semseg", "depth"))
    assert torch.equal(one, other)
    assert one.data_ptr() != other.data_ptr()
    eight = tiny.design({**design, "s1p0_2.precision": "int8"}).precision
    assert eight["s1p0_2__semseg"] == eight["s1p0_2__depth"] == "int8"


def test_a_skipped_block_leaves_its_input_as_it_is(tiny: Space) -> None:
    """With weights of zero a kept block adds nothing: the net is the one that skips it."""
    torch.manual_seed(0)
    supernet, image = Supernet.of(tiny), torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        supernet.shared["blocks.s2p0_1.project.norm.weight"].zero_()
        supernet.shared["blocks.f2p1to0.conv.norm.weight"].zero_()
        with_them = by_tensor(supernet(image, masked(tiny, semseg={"s2p0_1", "f2p1to0", "s1p0_1"})).outputs)["semseg"]
        without = by_tensor(supernet(image, masked(tiny, semseg={"s1p0_1"})).outputs)["semseg"]
    assert torch.equal(with_them, without)


def test_what_feeds_only_skipped_edges_is_no_cost(tiny: Space) -> None:
    """Path 2 is read by no edge and not by the decoder: its blocks are gone, its opening too."""
    design = masked(tiny, semseg={"s1p2_1", "s2p2_1"})
    assert design["semseg.s1p2_1"] == SKIP
    alone = load_space_of(tiny, "semseg").design({})
    assert design.cost(["semseg"]).flops == alone.cost().flops
    assert "open2" not in [block.name for block in design.plan.path(["semseg"])]


def test_edges_bring_features_up_and_down(tiny: Space) -> None:
    design = masked(tiny, semseg={"f2p2to0", "f2p0to2", "read2"})
    edges = {b.origin: b for b in design.plan.blocks if b.kind == "merge"}
    assert edges["f2p2to0"].enlarge == 4
    assert (edges["f2p0to2"].convs[0].kernel, edges["f2p0to2"].convs[0].stride) == (3, 4)
    net = Supernet.of(tiny).extract(design)
    shapes = {name: tuple(value.shape) for name, value in net.run_all(torch.zeros(1, 3, 64, 96)).items()}
    assert shapes["f2p2to0"] == (1, 8, 16, 24)
    assert shapes["f2p0to2"] == (1, 24, 4, 6)


def test_the_plan_counts_what_the_net_has(tiny: Space) -> None:
    net = Supernet.of(tiny).extract(tiny.largest())
    convs: list[Tensor] = [m.weight for m in net.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    biases = sum(len(weight) for weight in convs)
    assert tiny.largest().cost().params == sum(weight.numel() for weight in convs) + biases
    recalibrate(net, [torch.randn(2, 3, 64, 96)])
    assert {task.name for task in TASKS} == set(by_tensor(net(torch.randn(1, 3, 64, 96))))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("width: 16", "width: 12", "multiple of 8"),
        ("width: [8], depth", "width: [8, 16], depth", "topology only"),
        ("paths: [{width: 8}, {width: 16, block: depthwise}, {width: 24}]", "paths: [{width: 8}]", "at least 2"),
        ("block: depthwise", "block: dense", "fused"),
    ],
)
def test_what_a_grid_cannot_be_is_refused(tmp_path: Path, old: str, new: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as error:
        grid_space(tmp_path, GRID.replace(old, new))
    assert "\n" not in str(error.value)


def test_a_task_called_like_a_block_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text(GRID)
    with pytest.raises(UserError, match="rename it"):
        load_space(str(path), (make_task("open1", "depth"),))


def test_the_shipped_grid_opens() -> None:
    space = load_space("grid", TASKS)
    assert space.smallest().cost().flops < space.largest().cost().flops / 3
