"""ONNX Runtime honours the contract of targets, and its INT8 is the simulation to the last bit."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import onnx

from edgemtl.models.quantization import calibrate, simulate
from edgemtl.runtime import open_engine
from edgemtl.targets import find_target
from edgemtl.tasks import by_tensor
from edgemtl.testing import TargetConformance, images, small_net

ONNXRUNTIME = find_target("onnxruntime")


class TestOnnxRuntime(TargetConformance):
    """The contract."""

    target = ONNXRUNTIME


def test_all_int8_is_the_simulation_nearly_everywhere_to_the_bit(tmp_path: Path) -> None:
    """Integers are exact; one value on the border between two steps may move its neighbours by a step."""
    for block in ("fused", "depthwise"):
        net = small_net(block, "relu6")
        precision = dict.fromkeys(net.blocks, "int8")
        ranges = calibrate(net, images(8))
        ONNXRUNTIME.build(net, precision, ranges, tmp_path / block)
        session = open_engine(tmp_path / block, threads=1)
        simulation, same, total = simulate(net, precision, ranges, ONNXRUNTIME.scheme), 0, 0
        for image in images(6, seed=7).split(1):
            expected, found = by_tensor(simulation(image)), by_tensor(session.run(image.numpy(), session.tasks))
            for task, value in expected.items():
                same += int((np.abs(found[task] - value.numpy()) < 1e-6).sum())
                total += value.numel()
        assert same / total > 0.97


def test_int8_reaches_the_integer_kernels_inside_conditions_too(tmp_path: Path) -> None:
    """The profile shows QLinearConv in a task's own blocks, and no float convolution or sum."""
    net = small_net()
    ONNXRUNTIME.build(net, dict.fromkeys(net.blocks, "int8"), calibrate(net, images(8)), tmp_path)
    session = open_engine(tmp_path, threads=1)
    kinds = [(entry.block, entry.op) for entry in session.operator_times(images(1).numpy(), ["depth"], 1)]
    assert {"depth_neck", "depth_body", "depth_head", "stem"} <= {block for block, op in kinds if op == "QLinearConv"}
    assert {("depth_body", "QLinearAdd"), ("s4_2", "QLinearAdd")} <= set(kinds), "both tensors of a sum are stored"
    assert not {op for _, op in kinds} & {"Add", "Conv", "FusedConv"}


def test_what_only_moves_values_works_on_eight_bits(tmp_path: Path) -> None:
    """Enlargements and sub-pixel heads move a quarter of the bytes, and no rounding stands before or behind them."""
    net = small_net().subset(["semseg"])
    ONNXRUNTIME.build(net, dict.fromkeys(net.blocks, "int8"), calibrate(net, images(8)), tmp_path)
    graph = onnx.load(tmp_path / "model.onnx").graph
    written = {name: node.op_type for node in graph.node for name in node.output}
    moved = [node for node in graph.node if node.op_type in ONNXRUNTIME.scheme.passthrough_ops]
    assert {node.op_type for node in moved} == {"Resize", "DepthToSpace"}
    for node in moved:
        assert written[node.input[0]] in ("QuantizeLinear", *ONNXRUNTIME.scheme.passthrough_ops)
        readers = {other.op_type for other in graph.node if node.output[0] in other.input}
        assert readers <= {"DequantizeLinear", *ONNXRUNTIME.scheme.passthrough_ops}


def test_float_blocks_are_left_as_they_are(tmp_path: Path) -> None:
    net = small_net()
    ONNXRUNTIME.build(net, {"s2_1": "int8", "s2_2": "int8"}, calibrate(net, images(8)), tmp_path)
    model = onnx.load(tmp_path / "model.onnx")
    eight = {
        node.name.split(".")[1] for node in model.graph.node if node.op_type == "QuantizeLinear" and "." in node.name
    }
    assert eight == {"s1_2", "s2_1", "s2_2"}, "what enters the first INT8 block is rounded after the block before it"


def test_a_build_takes_less_than_a_second(tmp_path: Path) -> None:
    net = small_net(size=(192, 256))
    ranges = calibrate(net, images(1, (192, 256)))
    precision = dict.fromkeys(net.blocks, "int8")
    ONNXRUNTIME.build(net, precision, ranges, tmp_path)
    start = time.process_time()  # that of this process: another one's work does not count
    ONNXRUNTIME.build(net, precision, ranges, tmp_path)
    assert time.process_time() - start < 1.0
