from __future__ import annotations

import random
from pathlib import Path

import pytest
from small import designs, pictures, small_space

from edgemtl.errors import UserError
from edgemtl.models import MultiTaskNet
from edgemtl.spaces import Plan, load_space, prunable_channels, with_channels
from edgemtl.tasks import by_tensor, make_task

TASKS = (make_task("semseg", "segmentation", classes=("wall", "floor")), make_task("kind", "classification", 3))


def stage_widths(plan: Plan) -> dict[str, str]:
    """What must have one width: the last convolutions of residual blocks go with those they are added to."""
    leader = {"image": "image"}
    for block in plan.blocks:
        own = f"{block.parameters}.{block.convs[-1].name}"
        leader[block.name] = leader[block.inputs[0]] if block.residual else own
    return {f"{b.parameters}.{b.convs[-1].name}": leader[b.name] for b in plan.blocks}


def drawn(plan: Plan, rng: random.Random) -> dict[str, int]:
    """Random counts that keep sums of equal widths."""
    whole, leader = prunable_channels(plan), stage_widths(plan)
    counts: dict[str, int] = {}
    for block in plan.blocks:
        for conv in block.convs:
            name = f"{block.parameters}.{conv.name}"
            is_sum = block.parallel or conv.name in block.tied
            first = f"{block.parameters}.{block.convs[0].name}" if is_sum else leader.get(name, name)
            if name in whole:
                counts[name] = counts.setdefault(first, rng.randint(1, whole.get(first, whole[name])))
    return {name: count for name, count in counts.items() if name in whole}


def test_a_narrowed_plan_is_a_net_that_runs_and_costs_what_its_parameters_say(tmp_path: Path) -> None:
    rng = random.Random(0)
    for design in designs(small_space(tmp_path), 20):
        counts = drawn(design.plan, rng)
        plan = with_channels(design.plan, counts)
        net = MultiTaskNet(plan, design.space.tasks).eval()
        outputs = by_tensor(net(pictures(1, plan.input_size)))
        whole = by_tensor(MultiTaskNet(design.plan, design.space.tasks).eval()(pictures(1, plan.input_size)))
        assert {name: v.shape for name, v in outputs.items()} == {name: v.shape for name, v in whole.items()}
        weights = sum(p.numel() for name, p in net.named_parameters() if p.ndim > 1)
        assert plan.cost().params == weights + sum(conv.outputs for block in plan.blocks for conv in block.convs)
        assert {n: c for n, c in prunable_channels(plan).items() if n in counts} == counts


def test_experts_and_hidden_units_are_narrowed_for_every_task() -> None:
    space = load_space("moe-vit", TASKS, (64, 64))
    plan = space.largest().plan
    made = with_channels(plan, {"b1.first": 24, "b2.experts.first": 16, "stem2.conv": 8})
    net = MultiTaskNet(made, TASKS).eval()
    assert by_tensor(net(pictures(1, (64, 64))))["semseg"].shape == (1, 2, 64, 64)
    assert net.get_parameter("blocks.b2.mixture.experts.3.second.weight").shape == (128, 16)
    assert made.cost().flops < plan.cost().flops


def test_no_channels_is_the_same_plan(tmp_path: Path) -> None:
    plan = small_space(tmp_path).largest().plan
    assert with_channels(plan, {}) == plan == with_channels(plan, prunable_channels(plan))


@pytest.mark.parametrize(
    ("channels", "says"),
    [
        ({"stem.con": 8}, "did you mean stem.conv"),
        ({"stem.conv": 0}, "1 to 16"),
        ({"stem.conv": 17}, "1 to 16"),
        ({"semseg_head.conv": 1}, "unknown prunable convolution"),
        ({"a_2.project": 8}, "make them equal"),
        ({"semseg_neck.lateral_a": 8}, "make them equal"),
        ({"semseg_body.conv2": 8}, "block semseg_body adds tensors of 16 and 8 channels: make them equal"),
    ],
)
def test_counts_that_no_net_can_have_are_refused(tmp_path: Path, channels: dict[str, int], says: str) -> None:
    with pytest.raises(UserError, match=says):
        with_channels(small_space(tmp_path).largest().plan, channels)
