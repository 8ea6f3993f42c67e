"""Peaks of activations against sums by hand: chains, residual sums, heads, views, branches and what nothing tells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemtl.profiling import count_graph, profile
from edgemtl.profiling.activations import Activations

MAP = 4 * 3 * 64
"""Bytes of a map of 3 channels and 8 x 8 pixels in FP32."""


def conv(source: str, target: str, weight: str = "w", **attributes: object) -> onnx.NodeProto:
    size = 3 if weight == "w" else 1
    return helper.make_node("Conv", [source, weight], [target], f"/{target}", pads=[size // 2] * 4, **attributes)


def model_of(nodes: list[onnx.NodeProto], outputs: list[str], *more: TensorProto) -> onnx.ModelProto:
    weights = [numpy_helper.from_array(np.ones((3, 3, 3, 3), np.float32), "w")]
    weights += [numpy_helper.from_array(np.ones((12, 3, 1, 1), np.float32), "wide"), *more]
    info = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    graph = helper.make_graph(nodes, "g", [info], results, weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def peaks(nodes: list[onnx.NodeProto], outputs: list[str], *more: TensorProto) -> Activations:
    cost = count_graph(model_of(nodes, outputs, *more), activations=True)
    assert cost.activations is not None and cost.notes == ()
    return cost.activations


def relu(source: str, target: str) -> onnx.NodeProto:
    return helper.make_node("Relu", [source], [target], f"/{target}")


CHAIN = [conv("x", "a"), relu("a", "b"), conv("b", "c"), relu("c", "y")]


def test_a_chain_holds_what_is_read_and_what_is_written() -> None:
    assert peaks(CHAIN, ["y"]).total == 2 * MAP
    assert peaks([*CHAIN[:3], conv("c", "y", "wide")], ["y"]).total == MAP + 4 * MAP


def test_what_is_computed_element_by_element_takes_over_memory_that_is_free() -> None:
    assert peaks([conv("x", "a"), relu("a", "y")], ["y"]).total == 2 * MAP
    both = [conv("x", "a"), relu("a", "b"), conv("b", "c"), helper.make_node("Add", ["a", "c"], ["y"])]
    assert peaks(both, ["y"]).total == 3 * MAP  # `a` is read later: its ReLU and what follows stand beside it
    assert peaks([relu("x", "b"), conv("b", "y")], ["y"]).total == 2 * MAP  # an input of the graph is the caller's


def test_reshaping_takes_no_memory_and_holds_what_it_shows() -> None:
    shape = numpy_helper.from_array(np.array([1, 3, 64]), "s")
    back = numpy_helper.from_array(np.array([1, 3, 8, 8]), "k")
    nodes = [conv("x", "a"), helper.make_node("Reshape", ["a", "s"], ["v"]), conv("a", "b")]
    nodes += [helper.make_node("Reshape", ["v", "k"], ["z"]), helper.make_node("Add", ["b", "z"], ["y"])]
    assert peaks(nodes, ["y"], shape, back).total == 2 * MAP


def test_parts_have_their_peaks_and_tasks_what_is_saved_without_them() -> None:
    nodes = [conv("x", "t"), conv("t", "wide_map", "wide"), helper.make_node("ReduceMean", ["wide_map"], ["cls"])]
    nodes += [conv("t", "seg")]
    found = peaks(nodes, ["cls", "seg"])
    assert found == Activations(
        total=5 * MAP + 4, trunk=2 * MAP, tasks={"cls": 5 * MAP + 4, "seg": 2 * MAP + 4},
        saved={"cls": 3 * MAP + 4, "seg": 4},
    )  # fmt: skip
    assert peaks(CHAIN, ["y"]).saved == {"y": 2 * MAP}


def test_what_is_computed_from_weights_alone_is_no_activation() -> None:
    nodes = [helper.make_node("Mul", ["w", "w"], ["ww"]), conv("x", "y", "ww")]
    nodes[1].ClearField("attribute")
    assert peaks(nodes, ["y"]).total == MAP + 4 * 3 * 36


def test_of_branches_the_larger_counts_and_a_loop_holds_an_iteration() -> None:
    small = helper.make_graph([relu("x", "s")], "small", [], [helper.make_tensor_value_info("s", 1, [1, 3, 8, 8])])
    inner = [conv("x", "m", "wide"), helper.make_node("ReduceMean", ["m"], ["mean"]), conv("x", "n")]
    inner.append(helper.make_node("Mul", ["n", "mean"], ["r"]))
    large = helper.make_graph(inner, "large", [], [helper.make_tensor_value_info("r", 1, [1, 3, 8, 8])])
    yes = numpy_helper.from_array(np.array(True), "yes")
    branch = helper.make_node("If", ["yes"], ["y"], then_branch=small, else_branch=large)
    cost = count_graph(model_of([branch], ["y"], yes), activations=True)
    assert cost.activations is not None and 5 * MAP + 4 <= cost.activations.total <= 6 * MAP + 4
    ends = [helper.make_tensor_value_info("i", TensorProto.INT64, []), helper.make_tensor_value_info("go", 9, [])]
    ends.append(helper.make_tensor_value_info("in", 1, [1, 3, 8, 8]))
    turn = [helper.make_node("Identity", ["go"], ["on"]), conv("in", "m", "wide"), conv("in", "n")]
    turn += [helper.make_node("ReduceMean", ["m"], ["mean"]), helper.make_node("Mul", ["n", "mean"], ["out"])]
    results = [helper.make_tensor_value_info("on", 9, []), helper.make_tensor_value_info("out", 1, [1, 3, 8, 8])]
    turns = numpy_helper.from_array(np.array(3), "turns")
    loop = helper.make_node("Loop", ["turns", "yes", "x"], ["y"], body=helper.make_graph(turn, "b", ends, results))
    cost = count_graph(model_of([loop], ["y"], yes, turns), activations=True)
    assert cost.activations is not None and 6 * MAP <= cost.activations.total <= 7 * MAP


def test_sizes_that_only_a_run_tells_and_types_that_onnx_does_not_know(tmp_path: Path) -> None:
    nodes = [helper.make_node("QuickGelu", ["x"], ["a"], domain="com.microsoft"), relu("a", "y")]
    path = tmp_path / "m.onnx"
    onnx.save(model_of(nodes, ["y"]), path)
    found = count_graph(path, activations=True).activations
    assert found is not None and found.total == 2 * MAP
    measured = profile(path, runs=2, threads=1)
    assert measured.counts is not None and measured.counts.total.activation_bytes == found.total


def test_a_size_that_nothing_tells_is_named() -> None:
    nodes = [helper.make_node("Foreign", ["x"], ["a"], domain="of.others"), relu("a", "y")]
    cost = count_graph(model_of(nodes, ["y"]), activations=True)
    assert cost.activations is None and len(cost.notes) == 2
    assert cost.notes[-1] == "the peak of activations is not known: the size of 'a' is not"


def test_sequences_of_unknown_length_are_named_beside_what_is_counted() -> None:
    items = helper.make_tensor_sequence_value_info("items", TensorProto.FLOAT, None)
    first = numpy_helper.from_array(np.array(0), "first")
    model = model_of([helper.make_node("SequenceAt", ["items", "first"], ["y"])], ["y"], first)
    model.graph.input.append(items)
    assert count_graph(model, activations=True).notes == (
        "none of its operators multiplies matrices: there are no FLOPs to count",
        "the peak of activations is not known: the size of 'items' is not",
    )


@pytest.mark.parametrize("outputs", [["y"], ["b", "y"]])
def test_outputs_stay_to_the_end(outputs: list[str]) -> None:
    nodes = [conv("x", "a"), conv("a", "b"), conv("b", "c"), conv("c", "y")]
    assert peaks(nodes, outputs).total == (2 if outputs == ["y"] else 3) * MAP
