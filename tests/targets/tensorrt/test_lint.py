"""The linter: every rule is broken by a small graph, named with its node and a remedy, and kept by the right one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

from edgemtl.errors import UnsupportedError, UserError
from edgemtl.targets import emit
from edgemtl.targets.tensorrt.lint import Problem, check_graph, lint
from edgemtl.targets.tensorrt.rules import REMEDIES
from edgemtl.testing import small_net

FLOAT, BOOL = TensorProto.FLOAT, TensorProto.BOOL
Constants = dict[str, NDArray[np.generic]]


def node(op: str, inputs: Sequence[str], output: str, **attributes: Any) -> NodeProto:
    """A node called like its output."""
    return helper.make_node(op, list(inputs), [output], name=output, **attributes)


def graph_of(
    nodes: Sequence[NodeProto],
    constants: Constants | None = None,
    output: str = "y",
    inputs: dict[str, tuple[int, Sequence[Any]]] | None = None,
    opset: int = 17,
) -> onnx.ModelProto:
    """A model of input `x` (1, 4, 8, 8), unless others are given."""
    inputs = inputs or {"x": (FLOAT, [1, 4, 8, 8])}
    infos = [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()]
    stored = [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(list(nodes), "g", infos, [helper.make_empty_tensor_value_info(output)], stored)
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("mine", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return onnx.shape_inference.infer_shapes(model)


def top_k() -> NodeProto:
    """The largest values of `x`, as many as `k` says."""
    return helper.make_node("TopK", ["x", "k"], ["v", "i"], name="v")


def rounding(name: str, source: str, **changes: NDArray[np.generic]) -> tuple[list[NodeProto], Constants]:
    """A rounded twin of a tensor, `name`, and the way to it."""
    constants: Constants = {f"{name}.scale": np.float32(0.1) * np.ones(()), f"{name}.zero": np.zeros((), np.int8)}
    constants[f"{name}.scale"] = np.array(0.1, np.float32)
    constants |= {f"{name}.{key}": value for key, value in changes.items()}
    inputs = [f"{name}.scale", f"{name}.zero"]
    nodes = [
        node("QuantizeLinear", [source, *inputs], f"{name}.q"),
        node("DequantizeLinear", [f"{name}.q", *inputs], name),
    ]
    return nodes, constants


def convolution(axis: int = 0, entering: str = "a") -> tuple[list[NodeProto], Constants]:
    """A convolution with weights of eight bits, of 6 channels."""
    constants: Constants = {
        "w": np.ones((6, 4, 3, 3), np.int8),
        "w.scale": np.full((6, 4)[axis], 0.1, np.float32),
        "w.zero": np.zeros((6, 4)[axis], np.int8),
    }
    back = node("DequantizeLinear", ["w", "w.scale", "w.zero"], "w.back", axis=axis)
    return [back, node("Conv", [entering, "w.back"], "y", pads=[1, 1, 1, 1])], constants


def rules(model: onnx.ModelProto, version: str = "8.5") -> set[str]:
    """The rules that a model breaks."""
    return {problem.rule for problem in lint(model, version)}


def test_a_rounded_convolution_breaks_no_rule() -> None:
    before, first = rounding("a", "x")
    conv, second = convolution()
    for version in ("8.5", "10.3", "10.13", "11.4"):
        assert lint(graph_of([*before, *conv], first | second), version) == []


def broken_rounding(**changes: NDArray[np.generic]) -> onnx.ModelProto:
    nodes, constants = rounding("y", "x", **changes)
    return graph_of(nodes, constants)


def one_sided_sum() -> onnx.ModelProto:
    nodes, constants = rounding("a", "x")
    return graph_of([*nodes, node("Relu", ["x"], "b"), node("Add", ["a", "b"], "y")], constants)


def weights_alone() -> onnx.ModelProto:
    conv, constants = convolution(entering="x")
    return graph_of(conv, constants)


def along_the_wrong_axis() -> onnx.ModelProto:
    before, first = rounding("a", "x")
    conv, second = convolution(axis=1)
    return graph_of([*before, *conv], first | second)


def eight_bits_read() -> onnx.ModelProto:
    nodes, constants = rounding("a", "x")
    return graph_of([*nodes, node("MaxPool", ["a.q"], "y", kernel_shape=[2, 2])], constants)


def conditional(then: Sequence[NodeProto], other: Sequence[NodeProto], outside: Sequence[NodeProto] = (),
                constants: Constants | None = None) -> onnx.ModelProto:  # fmt: skip
    """An `If` on the input `c` whose branches give their last node's output."""
    branches = {
        f"{name}_branch": helper.make_graph(
            list(nodes), name, [], [helper.make_empty_tensor_value_info(nodes[-1].output[0])]
        )
        for name, nodes in (("then", then), ("else", other))
    }
    chosen = helper.make_node("If", ["c"], ["y"], name="y", **branches)
    inputs = {"x": (FLOAT, [1, 4, 8, 8]), "c": (BOOL, [1])}
    return graph_of([*outside, chosen], constants, inputs=inputs)


def rounded_outside() -> onnx.ModelProto:
    (q, back), constants = rounding("a", "x")
    return conditional([back], [node("Neg", ["x"], "n")], [q], constants)


def nested() -> onnx.ModelProto:
    inner = conditional([node("Relu", ["x"], "r")], [node("Neg", ["x"], "n")]).graph.node[0]
    inner.output[0] = inner.name = "inner"
    return conditional([inner], [node("Abs", ["x"], "b")])


def attention(inside: bool) -> onnx.ModelProto:
    attend = node("Attention", ["x", "x", "x"], "r")
    if not inside:
        return graph_of([attend], output="r", opset=23)
    model = conditional([attend], [node("Neg", ["x"], "n")])
    model.opset_import[0].version = 23
    return model


BROKEN = {
    "opset": (lambda: graph_of([node("Relu", ["x"], "y")], opset=19), "8.5", "opset 19, and 7 to 17 are read"),
    "operator": (lambda: graph_of([node("Hardmax", ["x"], "y")]), "8.5", "Hardmax at y"),
    "no operator": (lambda: graph_of([node("NonZero", ["x"], "n"), node("Unique", ["x"], "y")]), "11.4", "Unique at y"),
    "domain": (lambda: graph_of([helper.make_node("Own", ["x"], ["y"], name="y", domain="mine")]), "10.3", "mine"),
    "constant": (
        lambda: graph_of(
            [top_k()], output="v", inputs={"x": (FLOAT, [1, 8]), "k": (TensorProto.INT64, [1])}
        ),
        "8.5",
        "its input k is computed",
    ),
    "type": (
        lambda: graph_of([node("Relu", ["x"], "y")], inputs={"x": (TensorProto.DOUBLE, [1, 4])}), "10.3", "DOUBLE",
    ),
    "shape": (lambda: graph_of([node("Relu", ["x"], "y")], inputs={"x": (FLOAT, ["n", 4])}), "10.3", r"\?x4"),
    "limit": (
        lambda: graph_of([top_k()], {"k": np.array([5000])}, "v", {"x": (FLOAT, [1, 9000])}),
        "10.13",
        "it gives 5000, at most 3840",
    ),
    "resize": (
        lambda: graph_of(
            [node("Resize", ["x", "", "s"], "y", mode="cubic")], {"s": np.array([1, 1, 2, 2], np.float32)}
        ),
        "11.4",
        "mode is cubic",
    ),
    "scatter": (
        lambda: graph_of(
            [node("ScatterND", ["x", "i", "u"], "y", reduction="add")],
            {"i": np.zeros((1, 1), np.int64), "u": np.zeros((1, 4, 8, 8), np.float32)},
        ),
        "8.5",
        "reduction",
    ),
    "zero point": (lambda: broken_rounding(zero=np.array(3, np.int8)), "8.5", "y.zero is 3"),
    "scale": (lambda: broken_rounding(scale=np.array(-0.1, np.float32)), "10.3", "not positive"),
    "rounded tensor": (eight_bits_read, "10.3", "MaxPool y reads it"),
    "weights": (weights_alone, "8.5", "w.back is rounded and x is not"),
    "sum": (one_sided_sum, "10.13", "b is not rounded"),
    "half scales": (
        lambda: graph_of(
            [node("Cast", ["x"], "h", to=TensorProto.FLOAT16), node("QuantizeLinear", ["h", "s", "z"], "q"),
             node("DequantizeLinear", ["q", "s", "z"], "y")],
            {"s": np.array(0.1, np.float16), "z": np.zeros((), np.int8)}, opset=19,
        ),
        "8.6",
        "s is FP16",
    ),
    "branches": (
        lambda: conditional([node("Relu", ["x"], "r")], [node("GlobalAveragePool", ["x"], "p")]),
        "8.5",
        "r and p differ",
    ),
    "rounded in If": (rounded_outside, "10.3", "a.q comes from outside of y"),
    "Attention in If": (lambda: attention(inside=True), "11.4", "stands inside y"),
    "If in If": (nested, "10.3", "inner"),
}  # fmt: skip


def test_every_rule_has_a_graph_that_breaks_it() -> None:
    assert set(BROKEN) == set(REMEDIES)


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_named_with_its_node_and_a_remedy(rule: str) -> None:
    build, version, words = BROKEN[rule]
    problems = [problem for problem in lint(build(), version) if problem.rule == rule]
    assert problems
    with pytest.raises(UnsupportedError, match=words):
        raise UnsupportedError(*map(str, problems))
    assert str(problems[0]).endswith(REMEDIES[rule]) and "\n" not in str(problems[0])


@pytest.mark.parametrize(
    "changes",
    [{"zero": np.zeros((), np.uint8)}, {"scale": np.full(4, 0.1, np.float32)}, {"scale": np.zeros((), np.float32)}],
)
def test_rounding_that_is_unsigned_or_has_scales_for_channels_of_what_is_computed_is_refused(
    changes: Constants,
) -> None:
    assert rules(broken_rounding(**changes)) & {"zero point", "scale"}


def test_scales_of_a_weight_stand_along_its_output_channels() -> None:
    assert rules(along_the_wrong_axis(), "10.3") == {"scale"}


def test_an_operator_that_a_newer_tensorrt_has_is_named_with_the_first_one() -> None:
    model = emit(small_net())
    model.graph.node[2].op_type = "LayerNormalization"
    name = model.graph.node[2].name
    with pytest.raises(
        UnsupportedError, match=r"LayerNormalization at .* needs TensorRT 8\.6 or newer.*onnxruntime"
    ) as caught:
        check_graph(model, ["10.3", "8.5"])
    assert name in str(caught.value) and "TensorRT 8.5:" in str(caught.value)


def test_attention_outside_of_an_if_needs_a_newer_tensorrt_alone() -> None:
    assert rules(attention(inside=False), "11.4") == set()
    assert "operator" in rules(attention(inside=False), "10.13")


def test_many_problems_are_told_in_few_lines() -> None:
    model = graph_of(
        [node("Unique", ["x"], "a"), *(node("Unique", ["a"], f"b{number}") for number in range(9))], output="a"
    )
    with pytest.raises(UnsupportedError) as caught:
        check_graph(model, ["10.3"])
    assert str(caught.value).count("\n") == 3 and "more of them" in str(caught.value)


def test_a_version_without_rules_is_refused() -> None:
    with pytest.raises(UserError, match=r"TensorRT 8\.2 given"):
        lint(graph_of([node("Relu", ["x"], "y")]), "8.2")


def test_a_model_that_onnx_refuses_is_refused_in_one_line() -> None:
    model = graph_of([top_k()], {"k": np.array([3])}, "v")
    del model.graph.node[0].output[1]
    with pytest.raises(UserError, match=r"breaks ONNX's own rules .*TopK"):
        lint(model, "10.3")


def test_a_problem_of_the_model_names_no_node() -> None:
    assert str(Problem("", "", "opset", "it is old")).startswith("the model breaks the rule 'opset': it is old; ")
