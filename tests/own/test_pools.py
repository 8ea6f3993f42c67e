"""Maxima over windows of a map that is padded before them, as PyTorch and TensorFlow write those of uneven sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from own_nets import SIZE, model_of, saved, weight

from edgemtl.own import calibrate_model, open_net, propose_tasks, ready_for_rounding, resolve, task_model
from edgemtl.targets import TaskModel

IMAGES = [np.random.default_rng(number).normal(0, 1, (1, 3, *SIZE)).astype(np.float32) for number in range(4)]
UNEVEN = (0, 0, 0, 0, 0, 0, 1, 1)


def padded(folder: Path, value: float, pads: tuple[int, ...] = UNEVEN, **pool: Any) -> TaskModel:
    """A layer, a pad by some value, a maximum over 3x3 and a layer."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="stem", pads=[1, 1, 1, 1]),
        helper.make_node("Pad", ["a", "ends", "value"], ["b"], name="around"),
        helper.make_node("MaxPool", ["b"], ["c"], name="pool", kernel_shape=[3, 3], strides=[2, 2], **pool),
        helper.make_node("Conv", ["c", "w2"], ["map"], name="head"),
    ]
    constants = [
        weight("w1", 8, 3, 3, 3),
        weight("w2", 4, 8, 1, 1),
        numpy_helper.from_array(np.array(pads, np.int64), "ends"),
        numpy_helper.from_array(np.array(value, np.float32), "value"),
    ]
    net = open_net(str(saved(model_of(nodes, {"map": TensorProto.FLOAT}, constants), folder)))
    return task_model(net, resolve(net, propose_tasks(net)))[0]


def outputs(model: TaskModel, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.model.SerializeToString(), providers=["CPUExecutionProvider"])
    (value,) = session.run(None, {"image": image})
    return np.asarray(value)


def kinds(model: TaskModel) -> dict[str, str]:
    return {node.name.rsplit(".", 1)[1]: node.doc_string or node.op_type for node in model.model.graph.node}


@pytest.mark.parametrize("value", [float("-inf"), float(np.finfo(np.float32).min)])
def test_a_pool_pads_for_itself_where_nothing_can_win_outside(tmp_path: Path, value: float) -> None:
    model = padded(tmp_path, value)
    ready = ready_for_rounding(model)
    onnx.checker.check_model(ready.model, full_check=True)
    assert "around" in kinds(model) and "around" not in kinds(ready) and kinds(ready)["pool"] == "MaxPool"
    for image in IMAGES:
        np.testing.assert_array_equal(outputs(ready, image), outputs(model, image))
    calibrate_model(ready, IMAGES, len(IMAGES))


@pytest.mark.parametrize(
    ("pads", "pool"), [(UNEVEN, {"ceil_mode": 1}), ((0, 0, 3, 0, 0, 0, 0, 0), {}), (UNEVEN, {"auto_pad": "SAME_UPPER"})]
)
def test_a_pool_that_cannot_stays_in_float(tmp_path: Path, pads: tuple[int, ...], pool: dict[str, Any]) -> None:
    """Rounded up, with a window that holds nothing but pads, and with pads that follow from the size."""
    model = padded(tmp_path, float(np.finfo(np.float32).min), pads, **pool)
    ready = ready_for_rounding(model)
    assert kinds(ready)["around"] == "Pad" and kinds(ready)["pool"] == "MaxPool in float"
    np.testing.assert_array_equal(outputs(ready, IMAGES[0]), outputs(model, IMAGES[0]))


def test_a_pad_by_a_value_that_may_win_stays(tmp_path: Path) -> None:
    ready = ready_for_rounding(padded(tmp_path, 0.0))
    assert kinds(ready)["around"] == "Pad" and kinds(ready)["pool"] == "MaxPool"
