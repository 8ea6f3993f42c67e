from __future__ import annotations

import copy
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from small import SMALL, TASKS

from edgemtl.errors import UserError
from edgemtl.spaces import Plan, Space, find_family, load_space
from edgemtl.spaces.families.cnn import CnnSpec, cnn_blocks, cnn_choices
from edgemtl.spaces.space import _read_yaml
from edgemtl.testing import small_net

DENSE = TASKS[:2]
POOLED = TASKS[2:]

# Sandler et al. 2018, table 2: expansion t, channels c, repeats n, stride s.
MOBILENETV2 = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]


@pytest.fixture
def raw(tmp_path: Any) -> dict[str, Any]:
    """The small space's part of the YAML, to be changed."""
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    part: dict[str, Any] = copy.deepcopy(_read_yaml(path)["cnn"])
    return part


def shapes(plan: Plan, block: str) -> list[tuple[int, int, int, int, int]]:
    (found,) = (b for b in plan.blocks if b.name == block)
    return [(conv.inputs, conv.outputs, conv.kernel, conv.stride, conv.groups) for conv in found.convs]


def test_the_largest_of_mobilenetv2_is_mobilenetv2() -> None:
    space = load_space("mobilenetv2", POOLED, (224, 224))
    plan = space.largest().plan
    assert space.spec.activation == "relu6"
    assert shapes(plan, "stem") == [(3, 32, 3, 2, 1)]
    inputs = 32
    for stage, (expand, channels, repeats, stride) in enumerate(MOBILENETV2, 1):
        for number in range(1, repeats + 1):
            hidden, step = inputs * expand, stride if number == 1 else 1
            expansion = [] if expand == 1 else [(inputs, hidden, 1, 1, 1)]
            expected = [*expansion, (hidden, hidden, 3, step, hidden), (hidden, channels, 1, 1, 1)]
            assert shapes(plan, f"s{stage}_{number}") == expected
            (block,) = (b for b in plan.blocks if b.name == f"s{stage}_{number}")
            assert block.residual == (step == 1 and inputs == channels)
            inputs = channels
    assert shapes(plan, "last") == [(320, 1280, 1, 1, 1)]
    assert len([block for block in plan.blocks if block.task is None]) == 19


def test_sizes_follow_the_strides_and_odd_ones_are_rounded_up() -> None:
    family, spec = find_family("cnn"), load_space("mobilenetv2", POOLED).spec
    plan = family.plan(spec, POOLED, {}, (50, 34))
    sizes = {block.name: (block.convs[-1].height, block.convs[-1].width) for block in plan.blocks}
    assert [sizes[name] for name in ("stem", "s1_1", "s2_1", "s3_1", "s4_1", "s6_1", "last")] == [
        (25, 17), (25, 17), (13, 9), (7, 5), (4, 3), (2, 2), (2, 2),
    ]  # fmt: skip


def test_a_fused_block_is_dense_and_always_3x3(space: Space) -> None:
    plan = space.design({"b.block": "fused", "b.kernel": 7, "b.width": 24, "b.depth": 2}).plan
    assert shapes(plan, "b_2") == [(24, 48, 3, 1, 1), (48, 24, 1, 1, 1)]


def test_the_first_block_of_a_stage_never_adds_its_input(space: Space) -> None:
    plan = space.design({"b.width": 16, "c.width": 16, "c.depth": 2}).plan
    added = {block.name: block.residual for block in plan.blocks}
    assert added["c_2"] and not added["c_1"]  # c_1 keeps size and width as well, but in some designs only


def test_the_last_convolution_is_there_for_pooled_decoders_only() -> None:
    for tasks, expected in ((DENSE, False), (POOLED, True), (TASKS, True)):
        space = load_space("mobilenetv2", tasks)
        assert any(block.name == "last" for block in space.smallest().plan.blocks) == expected
        assert any(choice.name == "last.precision" for choice in space.choices) == expected


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_blocks_are_announced_with_the_depths_that_have_them(space: Space, seed: int) -> None:
    design = space.random(random.Random(seed))
    announced = cnn_blocks(space.spec, TASKS)
    there = {name: slot for name, slot in announced.items() if all(design[c] in o for c, o in slot.active_if.items())}
    assert {block.name: block.task for block in design.plan.blocks} == {name: slot.task for name, slot in there.items()}


def test_a_kernel_is_a_choice_where_some_block_is_depthwise(raw: dict[str, Any]) -> None:
    raw["stages"][1]["block"] = ["fused"]
    raw["stages"][3]["kernel"] = [3, 5]
    choices = {choice.name: choice for choice in cnn_choices(CnnSpec.model_validate(raw), TASKS)}
    assert "b.kernel" not in choices
    assert choices["d.kernel"].active_if == {}
    assert choices["c.kernel"].active_if == {"c.block": ("depthwise",)}


@pytest.mark.parametrize(
    ("position", "key", "value", "message"),
    [
        ("stem", "width", [12], "widths [12] must be multiples of 8"),
        ("stem", "width", [], "at least 1 item"),
        ("decoder", "width", [16, 8], "ascending order"),
        ("decoder", "depth", [0, 1], "greater than 0"),
        (0, "depth", [2, 2], "different and in ascending order"),
        (0, "expand", ["two"], "valid integer"),
        (0, "stride", 3, "Input should be 1 or 2"),
        (0, "kernel", [4], "Input should be 3, 5 or 7"),
        (0, "block", ["dense"], "'fused' or 'depthwise'"),
        (0, "name", "b", "two stages are called b"),
        (0, "colour", "red", "Extra inputs are not permitted"),
        (None, "features", ["a", "z"], "features name no stage: z; stages are a, b, c, d"),
        (None, "activation", "gelu", "'relu' or 'relu6'"),
        (None, "last", -1, "greater than 0"),
    ],
)
def test_what_cannot_become_a_net_is_refused(
    raw: dict[str, Any], position: str | int | None, key: str, value: Any, message: str
) -> None:
    part = raw if position is None else raw["stages"][position] if isinstance(position, int) else raw[position]
    part[key] = value
    with pytest.raises(ValidationError) as caught:
        CnnSpec.model_validate(raw)
    assert message in str(caught.value)


@pytest.mark.parametrize("features", [[], ["c", "d"], ["a", "d"], ["b", "c"]])
def test_dense_tasks_want_features_that_double(raw: dict[str, Any], features: list[str]) -> None:
    spec = CnnSpec.model_validate({**raw, "features": features})
    with pytest.raises(UserError, match=r"features have strides .* dense decoders want 4, 8, 16"):
        cnn_choices(spec, TASKS)
    assert cnn_choices(spec, POOLED)


def test_fused_and_depthwise_blocks_share_no_weights() -> None:
    """A supernet keeps one tensor for each name, so another name is all that keeps two layers apart."""
    names = {
        kind: {conv.name for block in small_net(kind).plan.blocks if block.kind == kind for conv in block.convs}
        for kind in ("fused", "depthwise")
    }
    assert names["fused"] and names["depthwise"] and not names["fused"] & names["depthwise"]
