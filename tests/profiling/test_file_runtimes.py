"""ONNX files in other runtimes than ONNX Runtime, and with more than two gigabytes of weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgemtl.errors import UserError
from edgemtl.profiling import profile
from edgemtl.profiling.subjects import open_subject


def info(name: str, sizes: list[int | str] | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, sizes)


def model_of(
    nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], outputs: list[str], *weights: TensorProto
) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", inputs, [info(name, None) for name in outputs], weights)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=9)


W = numpy_helper.from_array(np.ones((3, 3, 3, 3), np.float32), "w")
CONV = helper.make_node("Conv", ["x", "w"], ["a"], "conv", pads=[1] * 4)
CDIST = helper.make_node("CDist", ["x", "x"], ["y"], "far", domain="com.microsoft")


def test_openvino_takes_open_sizes_several_inputs_and_weights_outside(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    nodes = [CONV, helper.make_node("Add", ["a", "z"], ["y"]), helper.make_node("Relu", ["z"], ["r"])]
    model = model_of(nodes, [info(name, ["n", 3, "h", "w"]) for name in "xz"], ["y", "r"], W)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    measured = profile(tmp_path / "m.onnx", target="openvino", runs=2, threads=1, shapes={"x": (1, 3, 8, 8)})
    assert measured.inputs == {"x": (1, 3, 8, 8), "z": (1, 3, 8, 8)}
    assert measured.counts is not None and measured.counts.total.macs == 64 * 81


@pytest.mark.parametrize(
    ("target", "package", "refusal"),
    [("openvino", "openvino", "OpenVINO .* cannot open .*CDist"), ("tensorrt-rtx", "tensorrt_rtx", "refuses CDist")],
)
def test_an_operator_that_a_runtime_lacks_is_one_line(tmp_path: Path, target: str, package: str, refusal: str) -> None:
    pytest.importorskip(package)
    onnx.save(model_of([CDIST], [info("x", [3, 4])], ["y"]), tmp_path / "m.onnx")
    with pytest.raises(UserError, match=refusal) as error:
        open_subject(tmp_path / "m.onnx", target=target)
    assert "\n" not in str(error.value)


def test_what_tensorrt_rtx_takes_is_said_and_not_timed(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    model = model_of([CONV, helper.make_node("Relu", ["a"], ["y"])], [info("x", ["n", 3, 8, 8])], ["y"], W)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    with pytest.raises(UserError, match=r"takes .*m\.onnx \(\d+ layers\), but its engines need an NVIDIA GPU"):
        profile(tmp_path / "m.onnx", target="tensorrt-rtx", runs=2)


@pytest.mark.slow
def test_more_than_two_gigabytes_of_weights(tmp_path: Path) -> None:
    rows = 9_000_000
    with (tmp_path / "m.data").open("wb") as file:
        file.truncate(rows * 64 * 4)  # a hole: it takes no place on the disk
    table = TensorProto(name="table", data_type=TensorProto.FLOAT, dims=[rows, 64])
    table.data_location = TensorProto.EXTERNAL
    table.external_data.add(key="location", value="m.data")
    nodes = [helper.make_node("Gather", ["table", "ids"], ["e"]), helper.make_node("MatMul", ["e", "m"], ["y"])]
    nodes.append(helper.make_node("ReduceSum", ["e"], ["z"]))
    small = numpy_helper.from_array(np.ones((64, 8), np.float32), "m")
    ids = info("ids", ["n", "length"], TensorProto.INT64)
    onnx.save(model_of(nodes, [ids], ["y", "z"], table, small), tmp_path / "m.onnx")
    measured = profile(tmp_path / "m.onnx", runs=2, threads=1, shapes={"": (1, 16)})
    assert measured.counts is not None and measured.counts.trunk.weight_bytes == rows * 64 * 4 > 2**31
    assert measured.counts.tasks["y"].macs == 16 * 64 * 8
