"""MACs of single operators, each in a graph that ONNX Runtime runs where ONNX cannot infer it, against sums by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemtl.profiling import Cost, count_graph

OPSETS = [("", 23), ("com.microsoft", 1), ("ai.onnx.ml", 3)]


def graph_of(nodes: list[onnx.NodeProto], given: dict[str, Any], outputs: list[str], **model: Any) -> onnx.ModelProto:
    """A model whose inputs are tuples (float tensors of those sizes) and whose weights are arrays."""
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes)
        for name, sizes in given.items()
        if isinstance(sizes, tuple)
    ]
    weights = [numpy_helper.from_array(each, name) for name, each in given.items() if isinstance(each, np.ndarray)]
    infos = [helper.make_tensor_value_info(name, TensorProto.UNDEFINED, None) for name in outputs]
    for info in infos:
        info.ClearField("type")
    graph = helper.make_graph(nodes, "g", inputs, infos, weights)
    opsets = [helper.make_opsetid(domain, version) for domain, version in OPSETS]
    return helper.make_model(graph, opset_imports=model.pop("opset_imports", opsets), ir_version=10, **model)


def cost_of(operator: str, domain: str, given: list[Any], outputs: int = 1, **attributes: Any) -> Cost:
    """The cost of one operator; None leaves an optional input out."""
    names = ["" if each is None else f"i{index}" for index, each in enumerate(given)]
    node = helper.make_node(operator, names, [f"o{n}" for n in range(outputs)], "op", domain=domain, **attributes)
    tensors = {name: each for name, each in zip(names, given, strict=True) if name}
    return count_graph(graph_of([node], tensors, ["o0"]))


def ones(*sizes: int, kind: Any = np.float32) -> Any:
    return np.ones(sizes, kind)


FLOAT, BYTE = np.float32(1), np.uint8(0)
NOTHING = ("none of its operators multiplies matrices: there are no FLOPs to count",)
SCALE, ZERO = np.asarray(FLOAT), np.asarray(BYTE)


@pytest.mark.parametrize(
    ("operator", "given", "attributes", "macs"),
    [
        ("Conv", [(1, 4, 9, 7), ones(6, 2, 3, 3)], {"group": 2, "strides": [2, 2], "pads": [1] * 4}, 5 * 4 * 6 * 18),
        ("Conv", [(1, 4, 20), ones(6, 4, 5)], {"dilations": [2]}, 12 * 6 * 20),
        ("Conv", [(1, 2, 5, 6, 7), ones(3, 2, 1, 2, 3)], {}, 5 * 5 * 5 * 3 * 12),
        ("Conv", [(1, 4, 8, 8), ones(6, 4, 3, 3)], {"auto_pad": "SAME_UPPER", "strides": [2, 2]}, 16 * 6 * 36),
        ("ConvTranspose", [(1, 4, 5, 6), ones(4, 3, 2, 2)], {"strides": [2, 2], "group": 2}, 30 * 4 * 3 * 4),
        ("DeformConv", [(1, 4, 6, 6), ones(5, 4, 3, 3), (1, 18, 4, 4)], {}, 16 * 5 * 36),
        ("MatMul", [(3, 1, 5, 7), ones(4, 7, 2)], {}, 3 * 4 * 5 * 2 * 7),
        ("MatMul", [(7,), ones(7, 2)], {}, 14),
        ("MatMul", [(7,), ones(7)], {}, 7),
        ("Gemm", [(5, 3), ones(4, 5)], {"transA": 1, "transB": 1}, 3 * 4 * 5),
        ("Einsum", [(2, 3, 4), ones(4, 5)], {"equation": "bij, jk -> bik"}, 2 * 3 * 4 * 5),
        ("Einsum", [(2, 3, 4), ones(2, 3, 5, 4)], {"equation": "bhd,bhkd->bhk"}, 2 * 3 * 4 * 5),
        ("Einsum", [(2, 3, 4, 5), ones(5, 6)], {"equation": "...i,ij"}, 2 * 3 * 4 * 5 * 6),
        ("Einsum", [(3, 4, 4)], {"equation": "bii->b"}, 0),
        ("Einsum", [(2, 3), ones(3, 4), ones(4, 5)], {"equation": "ab,bc,cd->ad"}, 2 * 3 * 4 + 2 * 4 * 5),
        ("Einsum", [(2, 3), ones(5, 3, 4), ones(2, 4)], {"equation": "bi,oij,bj->bo"}, 2 * 5 * 3 * 4 + 2 * 5 * 4),
        ("LSTM", [(7, 2, 5), ones(1, 12, 5), ones(1, 12, 3)], {"hidden_size": 3}, 14 * 12 * 8),
        (
            "LSTM",
            [(2, 7, 5), ones(2, 12, 5), ones(2, 12, 3)],
            {"hidden_size": 3, "layout": 1, "direction": "bidirectional"},
            14 * 2 * 12 * 8,
        ),
        ("GRU", [(7, 2, 5), ones(1, 9, 5), ones(1, 9, 3)], {"hidden_size": 3, "direction": "reverse"}, 14 * 9 * 8),
        ("RNN", [(7, 2, 5), ones(1, 3, 5), ones(1, 3, 3)], {"hidden_size": 3}, 14 * 3 * 8),
        ("Attention", [(2, 4, 5, 6), (2, 4, 7, 6), (2, 4, 7, 8)], {}, 2 * 4 * 5 * 7 * (6 + 8)),
        ("Attention", [(2, 4, 5, 6), (2, 2, 7, 6), (2, 2, 7, 8)], {}, 2 * 4 * 5 * 7 * (6 + 8)),
        (
            "Attention",
            [(2, 5, 24), (2, 7, 12), (2, 7, 16)],
            {"q_num_heads": 4, "kv_num_heads": 2},
            2 * 4 * 5 * 7 * (6 + 8),
        ),
        (
            "Attention",
            [(2, 4, 5, 6), (2, 4, 5, 6), (2, 4, 5, 6), None, (2, 4, 9, 6), (2, 4, 9, 6)],
            {},
            2 * 4 * 5 * 14 * 12,
        ),
        ("AffineGrid", [(2, 2, 3), np.array([2, 3, 5, 6])], {}, 2 * 5 * 6 * 2 * 3),
        ("QLinearMatMul", [ones(5, 7, kind=np.uint8), SCALE, ZERO, ones(7, 3, kind=np.uint8), SCALE, ZERO] * 1
         + [SCALE, ZERO], {}, 5 * 7 * 3),
        ("Relu", [(1, 4)], {}, 0),
    ],
)  # fmt: skip
def test_standard_operators(operator: str, given: list[Any], attributes: dict[str, Any], macs: int) -> None:
    outputs = {"LSTM": 2, "GRU": 2, "RNN": 2, "Attention": 3 if len(given) > 3 else 1}.get(operator, 1)
    cost = cost_of(operator, "", given, outputs, **attributes)
    assert cost.notes == (() if macs else NOTHING)
    assert cost.total.flops == 2 * macs


@pytest.mark.parametrize(
    ("sizes", "attributes"),
    [
        (((2, 4, 5, 6), (2, 2, 7, 6), (2, 2, 7, 8)), {}),
        (((2, 5, 24), (2, 7, 12), (2, 7, 16)), {"q_num_heads": 4, "kv_num_heads": 2}),
    ],
)
def test_attention_counts_as_what_onnx_says_it_is_made_of(sizes: Any, attributes: dict[str, Any]) -> None:
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"], **attributes)
    infos = [value(name, sizes=shape) for name, shape in zip("qkv", sizes, strict=True)]
    graph = helper.make_graph([node], "g", infos, [value("y")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
    parts = onnx.inliner.inline_selected_functions(model, [("", "Attention")], inline_schema_functions=True)
    assert sum(each.op_type == "MatMul" for each in parts.graph.node) == 2
    assert count_graph(parts).total.flops == count_graph(model).total.flops > 0


@pytest.mark.parametrize(("rule", "times"), [("linear", 1), ("gated", 1), ("delta", 2), ("gated_delta", 2)])
def test_linear_attention_multiplies_with_its_state(rule: str, times: int) -> None:
    given: list[Any] = [(2, 5, 4 * 6), (2, 5, 2 * 6), (2, 5, 2 * 8), None]
    given += [(2, 5, 2) if "gated" in rule else None, (2, 5, 2) if "delta" in rule else None]
    names = ["" if each is None else f"i{index}" for index, each in enumerate(given)]
    node = helper.make_node("LinearAttention", names, ["y"], q_num_heads=4, kv_num_heads=2, update_rule=rule)
    tensors = {name: each for name, each in zip(names, given, strict=True) if name}
    cost = count_graph(graph_of([node], tensors, ["y"], opset_imports=[helper.make_opsetid("", 27)]))
    assert (cost.total.flops, cost.notes) == (2 * 2 * 5 * 6 * 8 * (4 + 2 * times), ())


def test_flexible_attention_counts_where_its_own_graphs_do_not_multiply() -> None:
    given = {"q": (2, 4, 5, 6), "k": (2, 2, 7, 6), "v": (2, 2, 7, 8)}
    opsets = [helper.make_opsetid("", 26), helper.make_opsetid("ai.onnx.preview", 1)]

    def cost(inner: onnx.NodeProto) -> Cost:
        body = helper.make_graph([inner], "b", [value("s", sizes=(2, 4, 5, 7))], [value("r", sizes=(2, 4, 5, 7))])
        node = helper.make_node("FlexAttention", ["q", "k", "v"], ["y"], domain="ai.onnx.preview", score_mod=body)
        return count_graph(graph_of([node], given, ["y"], opset_imports=opsets))

    assert cost(helper.make_node("Tanh", ["s"], ["r"])).total.flops == 2 * 2 * 4 * 5 * 7 * (6 + 8)
    (note,) = cost(helper.make_node("MatMul", ["s", "m"], ["r"])).notes
    assert note == "FlexAttention of ai.onnx.preview 'y': its FLOPs are not counted, no rule says what it multiplies"


PACKED = np.zeros((6, 2, 8), np.uint8)


@pytest.mark.parametrize(
    ("operator", "given", "attributes", "macs"),
    [
        ("FusedConv", [(1, 4, 9, 7), ones(6, 2, 3, 3)], {"group": 2, "activation": "Relu"}, 7 * 5 * 6 * 18),
        ("FusedConv", [(1, 2, 4, 4), ones(3, 2, 1, 1), None, ones(1, 3, 4, 4)], {"activation": "Relu"}, 96),
        ("FusedGemm", [(5, 3), ones(4, 5)], {"transA": 1, "transB": 1, "activation": "Relu"}, 60),
        ("FusedMatMul", [(2, 7, 5), ones(2, 7, 3)], {"transA": 1}, 2 * 5 * 3 * 7),
        ("FusedMatMul", [(7, 2, 5), ones(7, 2, 5)], {"transBatchA": 1, "transBatchB": 1, "transB": 1}, 2 * 7 * 7 * 5),
        ("FusedMatMul", [(7, 2, 5), ones(2, 7, 3)], {"transBatchA": 1, "transA": 1}, 2 * 5 * 3 * 7),
        ("TransposeMatMul", [(2, 7, 5), ones(2, 7, 3)], {"transA": 1}, 2 * 5 * 3 * 7),
        ("MatMulNBits", [(3, 5, 32), PACKED, ones(12)], {"K": 32, "N": 6, "bits": 4, "block_size": 16}, 15 * 6 * 32),
        ("DynamicQuantizeMatMul", [(5, 8), ones(8, 3, kind=np.uint8), ones(3)], {}, 120),
        ("Attention", [(2, 5, 12), ones(12, 36), ones(36)], {"num_heads": 3}, 10 * (12 * 36 + 5 * 24)),
        (
            "Attention",
            [(2, 5, 12), ones(12, 30), ones(30)],
            {"num_heads": 3, "qkv_hidden_sizes": [12, 12, 6]},
            10 * (12 * 30 + 5 * 18),
        ),
        ("MultiHeadAttention", [(2, 5, 12), (2, 7, 12), (2, 7, 6)], {"num_heads": 3}, 10 * 7 * 18),
        ("MultiHeadAttention", [(2, 5, 12), (2, 3, 7, 4), (2, 3, 7, 4)], {"num_heads": 3}, 10 * 7 * 24),
        ("MultiHeadAttention", [(2, 5, 3, 3, 4)], {"num_heads": 3}, 10 * 5 * 24),
        (
            "MultiHeadAttention",
            [(2, 5, 12), (2, 5, 12), (2, 5, 12), None, None, None, (2, 3, 4, 4), (2, 3, 4, 4)],
            {"num_heads": 3},
            10 * 9 * 24,
        ),
        (
            "GroupQueryAttention",
            [(1, 5, 64), (1, 5, 32), (1, 5, 32), (1, 2, 3, 16), (1, 2, 3, 16), np.array([7], np.int32),
             np.array([8], np.int32)],
            {"num_heads": 4, "kv_num_heads": 2},
            5 * 8 * 64 * 2,
        ),
        ("SkipLayerNormalization", [(2, 5, 12), (2, 5, 12), ones(12)], {}, 0),
        ("BiasGelu", [(5, 12), ones(12)], {}, 0),
    ],
)  # fmt: skip
def test_operators_of_onnx_runtime(operator: str, given: list[Any], attributes: dict[str, Any], macs: int) -> None:
    outputs = {"MultiHeadAttention": 3 if len(given) > 3 else 1, "GroupQueryAttention": 3}.get(operator, 1)
    cost = cost_of(operator, "com.microsoft", given, outputs, **attributes)
    assert cost.notes == (() if macs else NOTHING)
    assert cost.total.flops == 2 * macs


def test_packed_weights_count_as_what_they_hold_and_scales_are_no_parameters() -> None:
    cost = cost_of("MatMulNBits", "com.microsoft", [(5, 32), PACKED, ones(12)], K=32, N=6, bits=4, block_size=16)
    assert (cost.total.params, cost.total.weight_bytes) == (6 * 32, 96 + 48)


def test_eight_bit_operators_count_their_weights_alone() -> None:
    weights = [ones(4, 2, 3, 3, kind=np.uint8), SCALE, ZERO, SCALE, ZERO, ones(4, kind=np.int32)]
    image = ones(1, 2, 6, 6, kind=np.uint8)
    cost = cost_of("QLinearConv", "", [image, SCALE, ZERO, *weights])
    assert cost.total.flops == 2 * 16 * 4 * 18
    assert cost.total.params - image.size == 4 * 18 + 4


@pytest.mark.parametrize(
    ("operator", "given"),
    [
        ("QLinearConcat", [SCALE, ZERO, *[ones(1, 5, kind=np.uint8), SCALE, ZERO] * 2]),
        ("QLinearWhere", [ones(1, 5, kind=bool), *[ones(1, 5, kind=np.uint8), SCALE, ZERO] * 2, SCALE, ZERO]),
    ],
)
def test_scales_and_zero_points_of_eight_bit_operators_are_no_parameters(operator: str, given: list[Any]) -> None:
    cost = cost_of(operator, "com.microsoft", given, **({"axis": 1} if operator == "QLinearConcat" else {}))
    assert cost.total.params == 10


def test_classic_models_keep_their_weights_in_attributes() -> None:
    cost = cost_of("LinearRegressor", "ai.onnx.ml", [(5, 3)], coefficients=[1.0] * 6, intercepts=[0.0, 0.0], targets=2)
    assert (cost.total.flops, cost.total.params, cost.total.weight_bytes) == (2 * 30, 8, 32)
    vectors = {"support_vectors": [1.0] * 12, "coefficients": [1.0] * 4, "rho": [0.5], "n_supports": 4}
    assert cost_of("SVMRegressor", "ai.onnx.ml", [(5, 3)], **vectors).total.flops == 2 * 5 * 4 * (3 + 1)


@pytest.mark.parametrize(("operator", "domain"), [("CDist", "com.microsoft"), ("Anything", "of.others")])
def test_unknown_operators_are_never_taken_for_nothing(operator: str, domain: str) -> None:
    cost = cost_of(operator, domain, [(5, 3), (5, 3)])
    assert not cost.total.exact
    assert cost.notes == (f"{operator} of {domain} 'op': its FLOPs are not counted, no rule says what it multiplies",)


def test_functions_count_where_they_are_called_and_weights_once() -> None:
    body = [helper.make_node("MatMul", ["a", "b"], ["p"]), helper.make_node("Relu", ["p"], ["r"])]
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("local", 1)]
    function = helper.make_function("local", "Dense", ["a", "b"], ["r"], body, opsets[:1])
    calls = [helper.make_node("Dense", [x, "w"], [y], domain="local") for x, y in (("x", "h"), ("h", "y"))]
    tensors = {"x": (5, 4), "w": ones(4, 4)}
    cost = count_graph(graph_of(calls, tensors, ["y"], functions=[function], opset_imports=opsets))
    assert (cost.total.flops, cost.total.params) == (2 * 2 * 80, 16)


def test_functions_in_functions_of_another_version_keep_one_copy_of_their_constants() -> None:
    constant = numpy_helper.from_array(ones(4, 4), "k")
    inner = helper.make_function(
        "local", "F", ["a"], ["r"], [helper.make_node("MatMul", ["a", "a"], ["r"])], [helper.make_opsetid("", 15)]
    )
    body = [
        helper.make_node("Constant", [], ["k"], value=constant),
        helper.make_node("F", ["k"], ["kk"], domain="local"),
        helper.make_node("MatMul", ["a", "kk"], ["r"]),
    ]
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("local", 1)]
    outer = helper.make_function("local", "G", ["a"], ["r"], body, opsets)
    calls = [helper.make_node("G", [x], [y], domain="local") for x, y in (("x", "h"), ("h", "y"))]
    cost = count_graph(graph_of(calls, {"x": (5, 4)}, ["y"], functions=[inner, outer], opset_imports=opsets))
    assert (cost.total.flops, cost.total.params, cost.notes) == (2 * 2 * (64 + 80), 16, ())


def test_a_weight_by_way_of_identity_or_cast_counts_once() -> None:
    nodes = [
        helper.make_node("Identity", ["w"], ["same"]),
        helper.make_node("Cast", ["half"], ["v"], to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["x", "same"], ["h"]),
        helper.make_node("MatMul", ["h", "w"], ["g"]),
        helper.make_node("MatMul", ["g", "v"], ["y"]),
    ]
    cost = count_graph(graph_of(nodes, {"x": (5, 4), "w": ones(4, 4), "half": ones(4, 4, kind=np.float16)}, ["y"]))
    assert (cost.total.flops, cost.total.params, cost.total.weight_bytes) == (2 * 3 * 80, 32, 64 + 32)


def product(source: str, target: str) -> onnx.NodeProto:
    return helper.make_node("MatMul", [source, "w"], [target], f"/{target}")


def value(name: str, kind: int = TensorProto.FLOAT, sizes: Any = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, sizes)


def loop(name: str, turns: str) -> onnx.NodeProto:
    """A loop that multiplies what it carries."""
    body = helper.make_graph(
        [product("state", "next"), helper.make_node("Identity", ["go"], ["on"])],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("state")],
        [value("on", TensorProto.BOOL, []), value("next")],
    )
    return helper.make_node("Loop", [turns, "", "x"], [name], f"/{name}", body=body)


def test_a_loop_counts_as_often_as_it_runs_whoever_says_so() -> None:
    turns = np.array(6, np.int64)
    cost = count_graph(graph_of([loop("y", "n")], {"x": (5, 4), "w": ones(4, 4), "n": turns}, ["y"]))
    assert (cost.total.flops, cost.total.params, cost.notes) == (2 * 6 * 80, 16, ())
    nodes = [helper.make_node("Size", ["x"], ["n"]), loop("y", "n")]
    cost = count_graph(graph_of(nodes, {"x": (5, 4), "w": ones(4, 4)}, ["y"]))
    assert cost.total.flops == 2 * 20 * 80
    assert cost.notes == ("Loop '/y': it is counted as often as it ran on inputs that were made up, 20",)


def test_loops_in_loops_and_in_branches(tmp_path: Path) -> None:
    tensors = {
        "x": (5, 4),
        "w": ones(4, 4),
        "n": np.array(6, np.int64),
        "m": np.array(3, np.int64),
        "c": np.array(True),
    }
    inner = loop("next", "m")
    inner.input[2] = "state"
    body = helper.make_graph(
        [inner, helper.make_node("Identity", ["go"], ["on"])],
        "outer",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("state")],
        [value("on", TensorProto.BOOL, []), value("next")],
    )
    inner.attribute[0].g.CopyFrom(renamed(inner.attribute[0].g))
    twice = helper.make_node("Loop", ["n", "", "x"], ["y"], "/y", body=body)
    assert count_graph(graph_of([twice], tensors, ["y"])).total.flops == 2 * 6 * 3 * 80
    branches = {"then_branch": helper.make_graph([loop("t", "n")], "then", [], [value("t")])}
    branches["else_branch"] = helper.make_graph([helper.make_node("Relu", ["x"], ["e"])], "else", [], [value("e")])
    choice = helper.make_node("If", ["c"], ["y"], "/y", **branches)
    assert count_graph(graph_of([choice], tensors, ["y"])).total.flops == 2 * 6 * 80


def renamed(body: onnx.GraphProto) -> onnx.GraphProto:
    """A loop's body with names of its own: names of what lies around must not come again."""
    copy = onnx.GraphProto.FromString(body.SerializeToString())
    for node in copy.node:
        node.input[:] = [name if name == "w" else f"{name}2" for name in node.input]
        node.output[:] = [f"{name}2" for name in node.output]
    for info in (*copy.input, *copy.output):
        info.name = f"{info.name}2"
    return copy


def test_a_loop_whose_burden_grows_is_named() -> None:
    body = helper.make_graph(
        [helper.make_node("Concat", ["all", "x"], ["more"], axis=0), product("more", "p")],
        "body",
        [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("all")],
        [value("go", TensorProto.BOOL, []), value("more"), value("p")],
    )
    node = helper.make_node("Loop", ["n", "", "x"], ["y", "ps"], "/y", body=body)
    body.node.append(helper.make_node("Identity", ["go"], ["on"]))
    body.output[0].name = "on"
    node.attribute[0].g.CopyFrom(body)
    cost = count_graph(graph_of([node], {"x": (1, 4), "w": ones(4, 4), "n": np.array(3, np.int64)}, ["y"]))
    assert not cost.total.exact
    assert cost.notes == ("Loop '/y': its FLOPs are not counted, 'all' has another size every time",)


def test_bodies_of_two_heads_with_the_same_names_stay_apart() -> None:
    tensors = {"x": (5, 4), "w": ones(4, 4), "n": np.array(3, np.int64), "m": np.array(2, np.int64)}
    cost = count_graph(graph_of([loop("a", "n"), loop("b", "m")], tensors, ["a", "b"]))
    assert (cost.tasks["a"].flops, cost.tasks["b"].flops) == (2 * 3 * 80, 2 * 2 * 80)
    assert (cost.trunk.flops, cost.trunk.params) == (0, 16)


def test_a_scan_counts_as_long_as_what_it_scans() -> None:
    body = helper.make_graph(
        [product("row", "p"), helper.make_node("Add", ["sum", "p"], ["more"])],
        "body",
        [value("sum", sizes=[1, 4]), value("row", sizes=[1, 4])],
        [value("more", sizes=[1, 4])],
    )
    scan = helper.make_node("Scan", ["s", "x"], ["y"], "/y", body=body, num_scan_inputs=1)
    cost = count_graph(graph_of([scan], {"s": ones(1, 4), "x": (7, 1, 4), "w": ones(4, 4)}, ["y"]))
    assert (cost.total.flops, cost.notes) == (2 * 7 * 16, ())


def test_of_two_branches_that_multiply_the_dearer_counts_and_is_said() -> None:
    branches = {}
    for name, nodes in (("then_branch", [product("x", "t")]), ("else_branch", [product("x", "h"), product("h", "t")])):
        branches[name] = helper.make_graph(nodes, name, [], [value("t")])
    choice = helper.make_node("If", ["c"], ["y"], "/y", **branches)
    cost = count_graph(graph_of([choice], {"c": np.array(True), "x": (5, 4), "w": ones(4, 4)}, ["y"]))
    assert cost.total.flops == 2 * 2 * 80
    assert cost.notes == ("If '/y': of its two branches the dearer one is counted",)


def test_constants_of_every_form_take_their_bytes() -> None:
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("z", TensorProto.FLOAT, [2], [1.0, 2.0]),
        helper.make_tensor("at", TensorProto.INT64, [2], [0, 5]),
        [4, 4],
    )
    nodes = [
        helper.make_node("Constant", [], ["w"], sparse_value=sparse),
        helper.make_node("Constant", [], ["b"], value_floats=[1.0] * 4),
        helper.make_node("Constant", [], ["s"], value_float=2.0),
        helper.make_node("Constant", [], ["axes"], value_ints=[0]),
        product("x", "p"),
        helper.make_node("Add", ["p", "b"], ["q"]),
        helper.make_node("Mul", ["q", "s"], ["r"]),
        helper.make_node("Unsqueeze", ["r", "axes"], ["y"]),
    ]
    cost = count_graph(graph_of(nodes, {"x": (5, 4)}, ["y"]))
    assert (cost.total.flops, cost.total.params, cost.total.weight_bytes) == (2 * 80, 2 + 4 + 1, 8 + 16 + 16 + 4 + 8)


def test_shapes_that_only_a_run_tells(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Cast", ["s"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["f", "two"], ["d"]),
        helper.make_node("Cast", ["d"], ["size"], to=TensorProto.INT64),
        helper.make_node("Resize", ["x", "", "", "size"], ["u"]),
        helper.make_node("Conv", ["u", "w"], ["y"]),
    ]
    tensors = {"x": (1, 8, 8, 8), "two": np.array([1, 1, 2, 2], np.float32), "w": ones(4, 8, 1, 1)}
    model = graph_of(nodes, tensors, ["y"])
    assert count_graph(model).total.flops == 2 * 8192
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    assert count_graph(model).total.flops == 2 * 8192
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    assert count_graph(tmp_path / "m.onnx").total.flops == 2 * 8192
