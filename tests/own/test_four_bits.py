"""Linear layers with weights of four bits: their rounding, and engines against numpy's products of what is stored."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from own_nets import model_of, saved, weight

from edgemtl.devices import HOST, load_device
from edgemtl.own import (
    INT4,
    OwnPrecision,
    calibrate_model,
    four_bit_blocks,
    in_precision,
    named_precision,
    open_net,
    propose_tasks,
    ready_for_rounding,
    resolve,
    task_model,
)
from edgemtl.own.four_bits import round_groups
from edgemtl.profiling import count_graph
from edgemtl.targets import TaskModel, find_target

SIZE = (4, 10)
ROWS, WIDE, NARROW = 12, 40, 70


def linear_net() -> onnx.ModelProto:
    """Rows of an image through products and layers of every kind; 40 and 70 inputs are no whole groups of 32.

    Two products share their weights, `short` has fewer inputs than a group, `turned` is a layer with a bias.
    """
    nodes = [
        helper.make_node("Reshape", ["x", "rows"], ["a"], name="rows"),
        helper.make_node("MatMul", ["a", "wide"], ["b"], name="wide"),
        helper.make_node("Add", ["b", "b1"], ["c"], name="bias"),
        helper.make_node("Tanh", ["c"], ["d"], name="tanh"),
        helper.make_node("MatMul", ["d", "square"], ["e"], name="square"),
        helper.make_node("MatMul", ["e", "square"], ["tokens"], name="again"),
        helper.make_node("ReduceMean", ["e"], ["f"], name="mean", axes=[1, 2], keepdims=0),
        helper.make_node("Gemm", ["f", "turned", "b2"], ["vector"], name="turned", transB=1),
        helper.make_node("Gemm", ["vector", "short"], ["few"], name="short"),
    ]
    constants = [
        weight("wide", WIDE, NARROW),
        weight("b1", NARROW),
        weight("square", NARROW, NARROW),
        weight("turned", 9, NARROW),
        weight("b2", 9),
        weight("short", 9, 2),
        numpy_helper.from_array(np.array([1, 1, ROWS // 4, WIDE]), "rows"),
    ]
    return model_of(nodes, dict.fromkeys(("tokens", "vector", "few"), TensorProto.FLOAT), constants, (1, 3, *SIZE))


@pytest.fixture
def model(tmp_path: Path) -> TaskModel:
    net = open_net(str(saved(linear_net(), tmp_path)))
    return task_model(net, resolve(net, propose_tasks(net)))[0]


def in_four(model: TaskModel, target: str) -> TaskModel:
    written_for = find_target(target, load_device(HOST))
    return in_precision(model, OwnPrecision(named_precision(INT4, model, [written_for])), written_for)


def unpacked(node: onnx.NodeProto, constants: dict[str, NDArray[np.generic]]) -> NDArray[np.float32]:
    """The weights (N, K) that an operator stores, by the definition of MatMulNBits, one by one."""
    sizes = {each.name: each.i for each in node.attribute}
    packed, scales = constants[node.input[1]], constants[node.input[2]]
    values = np.zeros((sizes["N"], sizes["K"]), np.float32)
    for row in range(sizes["N"]):
        for column in range(sizes["K"]):
            group, position = divmod(column, sizes["block_size"])
            byte = int(packed[row, group, position // 2])
            values[row, column] = ((byte >> 4 if position % 2 else byte & 15) - 8) * scales[row, group]
    return values


def by_numpy(written: TaskModel, image: NDArray[np.float32]) -> dict[str, NDArray[np.float64]]:
    """The outputs of `linear_net`, with the weights that stand in the graph."""
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in written.model.graph.initializer}
    stored = {
        node.name.rsplit(".", 1)[1]: unpacked(node, constants).T.astype(np.float64)
        for node in written.model.graph.node
        if node.op_type == "MatMulNBits"
    }
    assert {*stored} == {"wide", "square", "again", "turned"}
    own = {tensor.name: numpy_helper.to_array(tensor).astype(np.float64) for tensor in linear_net().graph.initializer}
    rows = np.tanh(image.reshape(1, 1, -1, WIDE) @ stored["wide"] + own["b1"])
    first = rows @ stored["square"]
    vector = first.mean((1, 2)) @ stored["turned"] + own["b2"]
    return {"tokens": first @ stored["again"], "vector": vector, "few": vector @ own["short"]}


def by_onnxruntime(model: onnx.ModelProto, image: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [info.name for info in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": image}), strict=True))


def test_steps_and_scales_are_no_further_from_weights_than_rounding_to_nearest() -> None:
    values = np.random.default_rng(0).normal(0, 1, (6, 70)).astype(np.float32)
    values[2, 32:64] = 0
    steps, scales = round_groups(values)
    assert steps.shape == (6, 3, 32) and scales.shape == (6, 3) and steps.min() >= -8 and steps.max() <= 7
    assert not steps[2, 1].any() and not steps[:, 2, 6:].any()
    for row in range(6):
        for group in range(3):
            part = values[row, 32 * group : 32 * group + 32]
            plain = max(abs(part)) / 7
            nearest = np.round(part / (plain or 1)) * plain
            ours = steps[row, group, : len(part)] * scales[row, group]
            assert np.square(ours - part).sum() <= np.square(nearest - part).sum() + 1e-6


def test_weights_that_are_whole_steps_are_kept_exactly() -> None:
    whole = np.random.default_rng(1).integers(-8, 8, (3, 64)).astype(np.float32)
    whole[:, ::32] = -8
    steps, scales = round_groups(whole * 0.25)
    np.testing.assert_array_equal(steps.reshape(3, 64) * np.repeat(scales, 32, axis=1), whole * 0.25)


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_engines_multiply_what_is_stored(model: TaskModel, target: str) -> None:
    """Activations stay in float: products are numpy's to rounding errors, and far from those of the float weights."""
    image = np.random.default_rng(2).normal(0, 1, (1, 3, *SIZE)).astype(np.float32)
    written = in_four(model, target)
    expected = by_numpy(written, image)
    if target == "onnxruntime":
        given = by_onnxruntime(written.model, image)
    else:
        compiled = openvino.Core().compile_model(
            openvino.Core().read_model(written.model.SerializeToString()),
            "CPU",
            {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0"},
        )
        given = {result.get_any_name(): value for result, value in compiled(image).items()}
    unrounded = by_onnxruntime(model.model, image)
    names = dict(zip(("tokens", "vector", "few"), (info.name for info in model.model.graph.output), strict=True))
    for name, own in names.items():
        size = np.abs(expected[name]).max()
        np.testing.assert_allclose(given[own], expected[name], atol=2e-5 * size)
        assert np.abs(unrounded[own] - expected[name]).max() > 1e-2 * size


def test_blocks_bytes_and_products_are_counted(model: TaskModel) -> None:
    assert set(four_bit_blocks(ready_for_rounding(model))) == set(named_precision(INT4, model, [])) - {"engine"}
    written = in_four(model, "onnxruntime")
    whole, four = count_graph(model.model).total, count_graph(written.model).total
    assert four.flops == whole.flops
    linear = {"wide": (WIDE, NARROW), "square": (NARROW, NARROW), "turned": (NARROW, 9)}
    less = sum(4 * inputs * outputs - outputs * -(-inputs // 32) * (16 + 4) for inputs, outputs in linear.values())
    assert whole.weight_bytes - four.weight_bytes == less, "the product that is there twice has its weights once"


@pytest.mark.parametrize("precision", ["int4", "int8"])
def test_weights_that_layers_in_float_share_are_stored_once(tmp_path: Path, precision: str) -> None:
    """A tower that runs over two maps, as detectors have it, beside a layer that is rounded."""
    nodes = [
        helper.make_node("Conv", ["x", "tower"], ["a"], name="one", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["a", "tower"], ["maps"], name="two", pads=[1, 1, 1, 1]),
        helper.make_node("Reshape", ["x", "row"], ["r"], name="row"),
        helper.make_node("Gemm", ["r", "linear"], ["vector"], name="linear"),
    ]
    constants = [
        weight("tower", 3, 3, 3, 3),
        weight("linear", 3 * SIZE[0] * SIZE[1], 8),
        numpy_helper.from_array(np.array([1, -1]), "row"),
    ]
    outputs = dict.fromkeys(("maps", "vector"), TensorProto.FLOAT)
    net = open_net(str(saved(model_of(nodes, outputs, constants, (1, 3, *SIZE)), tmp_path)))
    model, _ = task_model(net, resolve(net, propose_tasks(net)))
    ready = ready_for_rounding(model)
    block = next(name for name in four_bit_blocks(ready))
    images = [np.random.default_rng(3).normal(0, 1, (1, 3, *SIZE)).astype(np.float32)]
    chosen = OwnPrecision({"engine": "fp32", block: precision}, calibrate_model(ready, images, 1))
    written = in_precision(model, chosen, find_target("onnxruntime", load_device(HOST)))
    stored = [tensor for tensor in written.model.graph.initializer if list(tensor.dims) == [3, 3, 3, 3]]
    assert len(stored) == 1
