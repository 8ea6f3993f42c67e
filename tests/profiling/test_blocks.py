"""Blocks of graphs: from scopes in names, or from the wiring where names say nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemtl.profiling import profile
from edgemtl.profiling.blocks import Blocks, find_blocks, named_model

Nodes = list[onnx.NodeProto]


def conv(source: str, target: str, name: str = "", **attributes: object) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, "w"], [target], name, pads=[1] * 4, **attributes)


def relu(source: str, target: str, name: str = "") -> onnx.NodeProto:
    return helper.make_node("Relu", [source], [target], name)


def save(path: Path, nodes: Nodes, outputs: list[str], channels: int = 3) -> Path:
    weights = [numpy_helper.from_array(np.ones((channels, channels, 3, 3), np.float32), "w")]
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, channels, 16, 16])
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "g", [info], results, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def blocks_of(path: Path, outputs: list[str]) -> Blocks:
    return find_blocks(named_model(path).graph, {name: name for name in outputs})


RESIDUAL = [
    conv("x", "a"), relu("a", "b"), conv("b", "c"), relu("c", "d"), conv("d", "e"),
    helper.make_node("Add", ["b", "e"], ["f"]),
    conv("f", "g"), relu("g", "h"), helper.make_node("Add", ["h", "f"], ["t"]),
    conv("t", "u", dilations=[2, 2]), relu("u", "seg"), conv("t", "v"), conv("v", "cls"),
]  # fmt: skip


def test_blocks_end_where_one_tensor_carries_all(tmp_path: Path) -> None:
    found = blocks_of(save(tmp_path / "m.onnx", RESIDUAL, ["seg", "cls"]), ["seg", "cls"])
    assert [found.of(name) for name in "abcdefght"] == ["trunk 1"] * 2 + ["trunk 2"] * 4 + ["trunk 3"] * 3
    assert [found.of(name) for name in ("u", "seg", "v", "cls")] == ["seg", "seg", "cls 1", "cls 2"]
    assert found.owners == {"seg": "seg", "cls 1": "cls", "cls 2": "cls"}
    assert found.of("Conv#0") == found.of("Conv#0/fused with Relu") == "trunk 1" and found.of("Conv#01") == ""


def test_without_a_seam_blocks_end_where_the_resolution_changes(tmp_path: Path) -> None:
    nodes, before = [], "x"
    for level in range(4):
        nodes += [conv(before, f"s{level}"), conv(f"s{level}", f"d{level}", strides=[2, 2])]
        before = f"d{level}"
    for level in (3, 2, 1, 0):
        scale = helper.make_node("Constant", [], [f"k{level}"], value_floats=[1.0, 1.0, 2.0, 2.0])
        nodes += [scale, helper.make_node("Resize", [before, "", f"k{level}"], [f"r{level}"])]
        nodes += [helper.make_node("Add", [f"r{level}", f"s{level}"], [f"j{level}"]), conv(f"j{level}", f"y{level}")]
        before = f"y{level}"
    found = blocks_of(save(tmp_path / "unet.onnx", nodes, ["y0"]), ["y0"])
    labels = [found.of(name) for name in ("s0", "d0", "s1", "d1", "d3", "r3", "y3", "r2", "y0")]
    assert labels == [f"block {number}" for number in (1, 2, 2, 3, 5, 6, 6, 7, 9)]
    assert found.of("k2") == "" and found.owners == {}


@pytest.mark.parametrize("around", ["", "/model/", "StatefulPartitionedCall/functional_1/"])
def test_scopes_make_blocks_and_one_around_everything_does_not(tmp_path: Path, around: str) -> None:
    names = [f"{around}stem/Conv", f"{around}stem/Relu", f"{around}head/conv/Conv"]
    nodes = [conv("x", "a", names[0]), relu("a", "b", names[1]), conv("b", "y", names[2])]
    found = blocks_of(save(tmp_path / "m.onnx", nodes, ["y"]), ["y"])
    assert [found.of(name) for name in names] == ["stem", "stem", "head"]


def test_names_of_runtimes_that_tell_nothing_give_way_to_the_wiring(tmp_path: Path) -> None:
    nodes = [conv("x", "a", "n0"), conv("a", "b", "n0"), conv("b", "y", "model/n2")]
    found = blocks_of(save(tmp_path / "m.onnx", nodes, ["y"]), ["y"])
    assert [found.of(name) for name in ("a", "b", "y")] == ["block 1", "block 2", "block 3"]


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_times_of_operators_without_names_go_to_blocks(tmp_path: Path, target: str) -> None:
    pytest.importorskip(target)
    path = save(tmp_path / "m.onnx", RESIDUAL, ["seg", "cls"])
    found = profile(path, target=target, runs=2, threads=1)
    assert (found.target, found.runtime, found.source) == (target, target, "onnx")
    assert found.operators is not None
    owner = {row.name: row.owner for row in found.operators.by_block}
    assert {"trunk 1", "trunk 2", "trunk 3", "seg", "cls 1"} <= set(owner)  # whatever the runtime fuses
    assert (owner["trunk 1"], owner["seg"], owner["cls 1"]) == ("", "seg", "cls")
    assert [mode.name for mode in found.modes] == ["all tasks", "only seg", "only cls"]
    assert found.counts is not None and found.counts.tasks["cls"].macs == 2 * 256 * 81
