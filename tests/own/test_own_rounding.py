"""Graphs of strangers made ready for INT8: the same net, and every layer rounded that can be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from own_nets import SIZE, awkward, model_of, saved, three_tasks, weight
from refusals import refused

from edgemtl.devices import HOST, load_device
from edgemtl.own import (
    OwnPrecision,
    calibrate_model,
    in_precision,
    named_precision,
    open_net,
    propose_tasks,
    ready_for_rounding,
    resolve,
    rounded_blocks,
    task_model,
)
from edgemtl.targets import TaskModel, find_target

IMAGES = [np.random.default_rng(number).normal(0, 1, (1, 3, *SIZE)).astype(np.float32) for number in range(4)]


def opened(model: onnx.ModelProto, folder: Path) -> TaskModel:
    net = open_net(str(saved(model, folder)))
    return task_model(net, resolve(net, propose_tasks(net)))[0]


def outputs(model: TaskModel, image: np.ndarray) -> dict[str, np.ndarray]:
    session = onnxruntime.InferenceSession(model.model.SerializeToString(), providers=["CPUExecutionProvider"])
    names = [info.name for info in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": image}), strict=True))


def ops(model: TaskModel) -> dict[str, str]:
    """The operator type by which each operator's kind is known, by the last part of its name."""
    return {node.name.rsplit(".", 1)[1]: node.doc_string or node.op_type for node in model.model.graph.node}


def test_a_graph_made_ready_is_the_same_net(tmp_path: Path) -> None:
    model = opened(awkward(), tmp_path)
    ready = ready_for_rounding(model)
    onnx.checker.check_model(ready.model, full_check=True)
    for image in IMAGES:
        theirs, ours = outputs(model, image), outputs(ready, image)
        for name, value in theirs.items():
            np.testing.assert_allclose(ours[name], value, rtol=1e-4, atol=1e-5)
    assert {"norm", "factor", "shift"} <= ops(model).keys() and {"norm", "factor", "shift"}.isdisjoint(ops(ready))


def test_what_no_runtime_rounds_stays_in_float_and_says_so(tmp_path: Path) -> None:
    kinds = ops(ready_for_rounding(opened(awkward(), tmp_path)))
    assert kinds["stem"] == "Conv" and kinds["head"] == "Gemm" and kinds["pool"] == "MaxPool"
    assert kinds["dense"] == "Gemm" and "rows" not in kinds
    assert kinds["cubic"] == "Resize in float" and kinds["halved"] == "Gemm in float"


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("net", [awkward, three_tasks])
def test_int8_of_every_block_is_near_the_float_net(net: object, target: str, tmp_path: Path) -> None:
    model = opened(net(), tmp_path)  # type: ignore[operator]
    exporter = find_target(target, load_device(HOST))
    values = named_precision("int8", model, [exporter])
    ranges = calibrate_model(ready_for_rounding(model), IMAGES, len(IMAGES))
    rounded = in_precision(model, OwnPrecision(values, ranges), exporter)
    weights = [tensor for tensor in rounded.model.graph.initializer if tensor.data_type == TensorProto.INT8]
    assert sum(len(tensor.dims) > 1 for tensor in weights) == sum(
        node.op_type in ("Conv", "Gemm") and not node.doc_string for node in ready_for_rounding(model).model.graph.node
    )
    for image in IMAGES:
        theirs, ours = outputs(model, image), outputs(rounded, image)
        for name in theirs:
            apart = np.linalg.norm(ours[name] - theirs[name]) / np.linalg.norm(theirs[name])
            assert 0 < apart < 0.05 or name == "best", name


def test_a_block_alone_is_rounded(tmp_path: Path) -> None:
    model, target = opened(three_tasks(), tmp_path), find_target("openvino", load_device(HOST))
    ready = ready_for_rounding(model)
    assert len(rounded_blocks(ready)) == len(set(rounded_blocks(ready))) == 4
    ranges = calibrate_model(ready, IMAGES, len(IMAGES))
    rounded = in_precision(model, OwnPrecision({"engine": "fp32", rounded_blocks(ready)[-1]: "int8"}, ranges), target)
    theirs, ours = outputs(model, IMAGES[0]), outputs(rounded, IMAGES[0])
    changed = {name for name in theirs if not np.array_equal(theirs[name], ours[name])}
    assert changed and changed <= {"pose.points", "pose.score"}


def test_an_older_operator_set_is_brought_to_one_that_rounds(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="stem"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("ReduceMean", ["b"], ["c"], axes=[2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["c"], ["y"], axes=[0]),
    ]
    older = model_of(nodes, {"y": TensorProto.FLOAT}, [weight("w", 4, 3, 3, 3)])
    older.opset_import[0].version = 11
    model = opened(older, tmp_path)
    ready = ready_for_rounding(model)
    assert ready.model.opset_import[0].version == 13 and rounded_blocks(ready)
    ranges = calibrate_model(ready, IMAGES, len(IMAGES))
    target = find_target("onnxruntime", load_device(HOST))
    rounded = in_precision(model, OwnPrecision(named_precision("int8", model, [target]), ranges), target)
    one, other = outputs(model, IMAGES[0])["y"], outputs(rounded, IMAGES[0])["y"]
    assert 0 < np.abs(one - other).max() < 0.05 * np.abs(one).max()


def test_precisions_that_nothing_has_are_refused(tmp_path: Path) -> None:
    model, target = opened(three_tasks(), tmp_path), find_target("onnxruntime", load_device(HOST))
    words = refused(lambda: named_precision("int2", model, [target]))
    assert "--precision int2 is none of float, int8, int4, fp32" in words
    words = refused(lambda: named_precision("int4", model, [target]))
    assert "--precision int4: the net has no linear layer of 32 inputs or more" in words
    assert "no calibration image was given" in refused(lambda: calibrate_model(ready_for_rounding(model), [], 0))
    plain = model_of([helper.make_node("Relu", ["x"], ["y"])], {"y": TensorProto.FLOAT})
    (tmp_path / "plain").mkdir()
    words = refused(lambda: named_precision("int8", opened(plain, tmp_path / "plain"), [target]))
    assert "no convolution or linear layer" in words
