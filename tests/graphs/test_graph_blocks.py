"""Tasks of operators and blocks of graphs, on graphs of a line of text each."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from edgemtl.graphs import cut_blocks, group_by_tasks, moving_tensors, reads_and_writes, tasks_of_operators


def graph_of(lines: str, bodies: dict[str, onnx.GraphProto] | None = None) -> onnx.GraphProto:
    """A graph of lines `OPERATOR output input...`, which reads `x` and the weight `w`."""
    nodes = []
    for line in lines.strip().splitlines():
        operator, output, *inputs = line.split()
        weight = ["w"] if operator in ("Conv", "MatMul") else []
        inner = bodies if operator == "If" else {}
        nodes.append(helper.make_node(operator, [*inputs, *weight], [output], **(inner or {})))
    weight = helper.make_tensor("w", TensorProto.FLOAT, [1], [1.0])
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, None)
    return helper.make_graph(nodes, "g", [image], [], [weight])


def written(nodes: tuple[onnx.NodeProto, ...]) -> str:
    return " ".join(node.output[0] for node in nodes)


def test_a_tensor_that_a_branch_reads_is_needed_by_the_tasks_behind_it() -> None:
    inner = helper.make_graph([helper.make_node("Relu", ["b"], ["r"])], "then", [], [onnx.ValueInfoProto(name="r")])
    graph = graph_of("Conv a x\nRelu b a\nIf one c\nConv two a\nRelu nobody a", {"then_branch": inner})
    needed = tasks_of_operators(reads_and_writes(graph), {"one": {"one"}, "two": {"two"}})
    assert needed == [{"one", "two"}, {"one"}, {"one"}, {"two"}, set()]


def test_groups_have_the_tensors_that_others_read() -> None:
    graph = graph_of("Conv a x\nRelu b a\nConv one b\nConv c a\nRelu two c\nRelu nobody b")
    groups = group_by_tasks(graph, {"one": {"one"}, "two": {"c", "two"}})
    assert [(set(group.tasks), written(group.nodes), group.outputs) for group in groups] == [
        ({"one", "two"}, "a", ("a",)),
        ({"one"}, "b one", ("one",)),
        ({"two"}, "c two", ("c", "two")),
    ]


def test_blocks_are_cut_behind_residual_sums_and_before_a_norm() -> None:
    attention = "Norm n p\nMatMul q n\nMatMul k n\nProduct s q k\nAdd t s p\nNorm m t\nMatMul f m\nAdd y f t"
    blocks = cut_blocks(graph_of(f"Conv p x\n{attention}"), {"task": {"y"}})
    assert [written(block.nodes) for block in blocks] == ["p", "n q k s t", "m f y"]
    assert [block.outputs for block in blocks] == [("p",), ("t",), ("y",)]


@pytest.mark.parametrize(("layers", "sizes"), [(7, [8]), (9, [5, 5]), (17, [6, 6, 6])])
def test_a_stretch_without_a_seam_is_cut_evenly(layers: int, sizes: list[int]) -> None:
    chain = "\n".join(f"Conv c{number} {f'c{number - 1}' if number else 'x'}" for number in range(layers))
    blocks = cut_blocks(graph_of(f"{chain}\nAdd y c{layers - 1} x"), {"task": {"y"}})
    assert [len(block.nodes) for block in blocks] == sizes  # the sum lies in the last


def test_what_no_input_changes_is_in_a_block_and_holds_no_seam_up() -> None:
    graph = graph_of("Relu z w\nConv a x\nRelu v w\nConv b a\nAdd y b v")
    assert moving_tensors(graph) == {"x", "a", "b", "y"}
    blocks = cut_blocks(graph, {"task": {"y"}})
    assert [written(block.nodes) for block in blocks] == ["a v", "b y"]
