from __future__ import annotations

import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import TASKS, pictures
from torch import Tensor, nn

from edgemtl.models import MultiTaskNet
from edgemtl.spaces import Design, Space, load_space
from edgemtl.spaces.plan import BlockPlan, ConvPlan, Plan
from edgemtl.traits import Storage


def counted(net: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """FLOPs and folded parameters of all layers that run, counted from what they really compute."""
    flops = params = 0

    def count(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal flops, params
        weight = layer.weight
        assert isinstance(weight, Tensor)
        pixels = output.numel() // output.shape[1]  # one dot product for each channel of each place
        flops += 2 * pixels * weight.numel()
        params += weight.numel() + len(weight)  # and a bias a channel, once normalisation is folded in

    layers = [module for module in net.modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    with torch.no_grad():
        net.eval()(pictures(1, size))
    for hook in hooks:
        hook.remove()
    return flops, params


def assert_counts_agree(design: Design, size: tuple[int, int]) -> None:
    tasks = design.space.tasks
    net = MultiTaskNet(design.plan, tasks)
    cost = design.plan.cost()
    assert (cost.flops, cost.params) == counted(net, size)
    assert cost.weight_bytes == 4 * cost.params
    for task in tasks:
        part = design.plan.cost(tasks=[task.name])
        assert (part.flops, part.params) == counted(net.subset([task.name]), size)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_cost_is_what_the_layers_compute(space: Space, seed: int) -> None:
    assert_counts_agree(space.random(random.Random(seed)), (32, 64))


@pytest.mark.parametrize("name", ["cnn", "mobilenetv2"])
def test_cost_of_shipped_spaces_is_what_the_layers_compute(name: str) -> None:
    space = load_space(name, TASKS, (64, 32))
    assert_counts_agree(space.random(random.Random(5)), (64, 32))


def test_cost_of_the_largest_mobilenetv2_is_the_published_one() -> None:
    kind = (TASKS[2],)
    plan = load_space("mobilenetv2", kind, (224, 224)).largest().plan
    trunk = Plan(plan.input_size, tuple(block for block in plan.blocks if block.task is None))
    assert trunk.cost().flops / 2 == pytest.approx(300.8e6 - 1.28e6, rel=2e-3)  # paper: 300 M with the classifier
    assert trunk.cost().params == 2_223_872 - 17_056  # torchvision's trunk, less a normalisation weight a channel


def test_shared_blocks_count_once(space: Space) -> None:
    plan = space.middle().plan
    shared = Plan(plan.input_size, tuple(b for b in plan.blocks if b.task is None and b.name != "last")).cost()
    alone = [plan.cost(tasks=[task.name]) for task in space.tasks]
    assert plan.cost(tasks=[task.name for task in space.tasks]) == plan.cost()
    assert plan.cost().flops == shared.flops + sum(cost.flops - shared.flops for cost in alone)
    assert plan.cost().weight_bytes == shared.weight_bytes + sum(c.weight_bytes - shared.weight_bytes for c in alone)
    assert plan.cost(tasks=[]).flops == 0


def test_a_path_holds_what_the_tasks_read_and_nothing_else(space: Space) -> None:
    plan = space.smallest().plan
    assert [block.name for block in plan.path(["kind"])] == [
        "stem", "a_1", "b_1", "c_1", "d_1", "last", "kind_neck", "kind_head",
    ]  # fmt: skip
    assert [block.name for block in plan.path(["depth"])] == [
        "stem", "a_1", "b_1", "c_1", "d_1", "depth_neck", "depth_body", "depth_head",
    ]  # fmt: skip
    assert plan.path(["depth", "kind", "semseg"]) == plan.blocks


def test_a_layer_without_a_bias_stores_none_in_any_precision() -> None:
    conv = ConvPlan("conv", 8, 16, 3, 1, 1, 4, 4, has_bias=False)
    assert conv.params == conv.weights == 8 * 16 * 9
    usual, other = Storage(), Storage(channel_bytes=17)
    assert conv.bytes("float", other) == 4 * conv.weights
    assert conv.bytes("int8", other) == conv.bytes("int8", usual) == conv.weights + (4 + 1) * 16 + 10
    assert conv.bytes("int12", usual) - conv.bytes("int8", usual) == conv.weights // 2
    sizes = [conv.bytes(width, usual) for width in ("int8", "int10", "int12", "float")]
    assert sizes == sorted(set(sizes))


def test_bytes_follow_the_precision_of_each_block() -> None:
    conv = ConvPlan("conv", 8, 16, 3, 1, 1, 4, 4)
    plan = Plan(
        (4, 4), (BlockPlan("x", "conv", None, (conv,), ("image",)), BlockPlan("y", "conv", None, (conv,), ("x",)))
    )
    floats = 4 * (8 * 16 * 9 + 16)
    integers = 8 * 16 * 9 + 9 * 16 + 10  # weights; scales, zero points and biases; two rounded tensors
    assert plan.cost().weight_bytes == 2 * floats
    assert plan.cost({"y": "int8"}).weight_bytes == floats + integers
    assert plan.cost({"x": "int8", "y": "int8"}).weight_bytes == 2 * integers
    assert plan.cost({"y": "int8"}).flops == plan.cost().flops == 2 * 2 * 8 * 16 * 9 * 16
