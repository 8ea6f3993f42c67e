"""Grey images, inputs beside the image, and conditions that no image changes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from own_nets import SIZE, model_of, saved, weight

from edgemtl.errors import UserError
from edgemtl.own import Declaration, DeclaredTask, OwnNet, Pixels, open_net, propose_tasks, resolve, task_model

FLOAT = TensorProto.FLOAT
PIXELS = np.random.default_rng(0).uniform(0, 200, (1, 3, *SIZE)).astype(np.float32)


def exported(net: OwnNet) -> np.ndarray:
    """What the graph of a bundle gives for the pixels."""
    model, _ = task_model(net, resolve(net, propose_tasks(net)))
    onnx.checker.check_model(model.model, full_check=True)
    session = onnxruntime.InferenceSession(model.model.SerializeToString())
    return np.asarray(session.run(None, {"image": PIXELS})[0])


@pytest.mark.parametrize("kind", [FLOAT, TensorProto.UINT8])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_a_grey_net_reads_the_luminance(layout: str, kind: int, tmp_path: Path) -> None:
    shape = (1, 1, *SIZE) if layout == "NCHW" else (1, *SIZE, 1)
    inputs = [helper.make_tensor_value_info("x", kind, shape)]
    nodes = [helper.make_node("Cast", ["x"], ["f"], to=FLOAT), helper.make_node("Mul", ["f", "two"], ["y"])]
    two = [numpy_helper.from_array(np.array([2], np.float32), "two")]
    net = open_net(str(saved(model_of(nodes, {"y": FLOAT}, two, inputs=inputs), tmp_path)))
    assert (net.channels, net.layout, net.size) == (1, layout, SIZE)
    grey = 0.299 * PIXELS[:, 0] + 0.587 * PIXELS[:, 1] + 0.114 * PIXELS[:, 2]
    expected = 2 * (grey if kind == FLOAT else np.floor(grey)).reshape(shape)
    np.testing.assert_allclose(net.reference(PIXELS)["y"], expected, rtol=1e-6)
    np.testing.assert_allclose(exported(net), expected, rtol=1e-6)
    declared = Declaration(input=Pixels(colour="BGR"), tasks={"y": DeclaredTask(outputs=("y",))})
    with pytest.raises(UserError, match="reads grey images: colour BGR"):
        resolve(net, declared)


def scaled(folder: Path) -> str:
    inputs = [
        helper.make_tensor_value_info("scale", FLOAT, ["batch", 2]),
        helper.make_tensor_value_info("x", FLOAT, (1, 3, *SIZE)),
    ]
    nodes = [
        helper.make_node("ReduceSum", ["scale"], ["sum"], keepdims=0),
        helper.make_node("Mul", ["x", "sum"], ["y"]),
    ]
    return str(saved(model_of(nodes, {"y": FLOAT}, inputs=inputs), folder))


def test_inputs_beside_the_image_become_constants(tmp_path: Path) -> None:
    path = scaled(tmp_path)
    proposed = propose_tasks(open_net(path))
    assert proposed.constants == {"scale": (1.0, 1.0)}
    net = open_net(path, constants={"scale": (0.5, 2)})
    assert net.input == "x" and [node.op_type for node in net.model.graph.node] == ["Mul"]
    np.testing.assert_allclose(net.reference(PIXELS)["y"], 2.5 * PIXELS, rtol=1e-6)
    np.testing.assert_allclose(exported(net), 2.5 * PIXELS, rtol=1e-6)


def test_constants_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = scaled(tmp_path)
    with pytest.raises(UserError, match=r"reads scale \(1x2\) beside its image: .* 2 numbers, 1 are given"):
        open_net(path, constants={"scale": (1,)})
    with pytest.raises(UserError, match=r"constants of the tasks file: size is no input .* \(scale\)"):
        open_net(path, constants={"scale": (1, 1), "size": (1,)})


def branch(name: str, operator: str) -> onnx.GraphProto:
    """A branch that reads `x` from around it; the name of its inner tensor is that of the other branch's."""
    nodes = [helper.make_node("Mul", ["x", "factor"], ["inner"]), helper.make_node(operator, ["inner"], ["given"])]
    factor = numpy_helper.from_array(np.array([2], np.float32), "factor")
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info("given", FLOAT, None)], [factor])


@pytest.mark.parametrize(("limit", "operator"), [(3, "Relu"), (5, "Neg")])
def test_a_condition_that_no_image_changes_leaves_one_branch(limit: int, operator: str, tmp_path: Path) -> None:
    inner = helper.make_graph(
        [helper.make_node("If", ["always"], ["given"], then_branch=branch("a", "Neg"), else_branch=branch("b", "Abs"))],
        "nested",
        [],
        [helper.make_tensor_value_info("given", FLOAT, None)],
    )
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Size", ["shape"], ["rank"]),
        helper.make_node("Greater", ["rank", "limit"], ["more"]),
        helper.make_node("If", ["more"], ["chosen"], name="choice", then_branch=branch("c", "Relu"), else_branch=inner),
        helper.make_node("Conv", ["chosen", "w"], ["y"]),
    ]
    constants = [
        weight("w", 2, 3, 1, 1),
        numpy_helper.from_array(np.array(limit), "limit"),
        numpy_helper.from_array(np.array(True), "always"),
    ]
    path = saved(model_of(nodes, {"y": FLOAT}, constants), tmp_path)
    net = open_net(str(path))
    assert [node.op_type for node in net.model.graph.node if node.op_type != "Identity"] == ["Mul", operator, "Conv"]
    (theirs,) = onnxruntime.InferenceSession(str(path)).run(None, {"x": PIXELS})
    np.testing.assert_allclose(exported(net), theirs, rtol=1e-5, atol=1e-4)
