from __future__ import annotations

from edgemtl.report.drawing.design import Bar, design_parts

DESIGN = {
    "stem.width": 16,
    "s10.width": 64,
    "s10.depth": 1,
    "s2.width": 24,
    "s2.depth": 2,
    "s2.expand": 3,
    "s2.block": "fused",
    "s2.kernel": 5,
    "depth.width": 32,
    "depth.depth": 2,
    "edges.width": 16,
    "stem.precision": "int8",
    "s2_1.precision": "float",
    "s2_2.precision": "int8",
    "s2_3.precision": "int8",
    "s10_1.precision": "float",
    "depth_neck.precision": "float",
    "depth_body.precision": "int8",
    "depth_head.precision": "float",
    "engine.precision": "bf16",
}


def test_parts_stand_in_their_order_with_widths_and_precisions() -> None:
    parts = design_parts(DESIGN, ["depth", "edges"])
    assert [(part.name, part.task) for part in parts] == [
        ("stem", None),
        ("s2", None),
        ("s10", None),
        ("depth", "depth"),
        ("edges", "edges"),
    ]
    bars = {part.name: part.bars for part in parts}
    assert bars["stem"] == (Bar("stem", 16, "int8", ""),)
    assert bars["s2"] == (Bar("s2_1", 24, "float", "x3 fused 5x5"), Bar("s2_2", 24, "int8", "x3 fused 5x5"))
    assert [bar.channels for bar in bars["s10"]] == [64]


def test_a_decoder_repeats_its_body_and_only_that() -> None:
    depth, edges = design_parts(DESIGN, ["depth", "edges"])[-2:]
    assert [(bar.name, bar.channels, bar.precision) for bar in depth.bars] == [
        ("depth_neck", 32, "float"),
        ("depth_body", 32, "int8"),
        ("depth_body", 32, "int8"),
        ("depth_head", 32, "float"),
    ]
    assert edges.bars == (Bar("edges", 16, "float", ""),)


def test_a_task_called_depth_is_no_attribute() -> None:
    parts = design_parts({"depth.depth": 3, "s1.depth": 2}, ["depth"])
    assert {part.name: len(part.bars) for part in parts} == {"s1": 2, "depth": 3}


def test_a_manifest_tells_precisions_and_blocks() -> None:
    precision = {
        "engine": "bf16",
        "stem": "float",
        "s1_1": "int8",
        "s1_2": "float",
        "depth_neck": "int8",
        "depth_head": "float",
    }
    parts = design_parts({}, ["depth"], precision)
    assert [(part.name, [(bar.name, bar.precision, bar.channels) for bar in part.bars]) for part in parts] == [
        ("stem", [("stem", "float", None)]),
        ("s1", [("s1_1", "int8", None), ("s1_2", "float", None)]),
        ("depth", [("depth_neck", "int8", None), ("depth_head", "float", None)]),
    ]


def test_foreign_designs_do_not_break_the_drawing() -> None:
    parts = design_parts({"no dot": 1, "a.b.c": "x", "s1.width": "wide", "s1.depth": True}, ["t"])
    assert all(bar.channels is None for part in parts for bar in part.bars)


def test_pruned_channels_are_a_blocks_width_and_no_part_of_their_own() -> None:
    pruned = {"s2_1.dense.channels": 8, "s2_1.project.channels": 20, "depth_body.conv2.channels": 12}
    parts = design_parts({**DESIGN, **pruned}, ["depth", "edges"])
    widths = {bar.name: bar.channels for part in parts for bar in part.bars}
    assert [part.name for part in parts] == ["stem", "s2", "s10", "depth", "edges"]
    assert (widths["s2_1"], widths["s2_2"], widths["depth_body"], widths["depth_neck"]) == (20, 24, 12, 32)
