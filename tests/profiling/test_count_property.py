"""Counts of generated graphs against the oracle: as they are, and as ONNX Runtime saves them after optimising them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx_oracle import true_macs

from edgemtl.profiling import count_graph


class Builder:
    """A graph that grows by operators of random sizes, with the shape of every tensor that it made."""

    def __init__(self, draw: Any) -> None:
        self.draw, self.nodes, self.weights = draw, list[onnx.NodeProto](), list[onnx.TensorProto]()
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.number = 0

    def int(self, low: int, high: int) -> int:
        return int(self.draw(st.integers(low, high)))

    def constant(self, value: Any) -> str:
        self.number += 1
        self.weights.append(numpy_helper.from_array(np.asarray(value), f"c{self.number}"))
        return f"c{self.number}"

    def weight(self, *shape: int) -> str:
        rng = np.random.default_rng(self.number)
        return self.constant(rng.standard_normal(shape).astype(np.float32) / 8)

    def add(self, operator: str, inputs: list[str], shape: tuple[int, ...], outputs: int = 1, **given: Any) -> str:
        self.number += 1
        name = f"t{self.number}"
        names = ["" for _ in range(outputs - 1)] + [name]
        self.nodes.append(helper.make_node(operator, inputs, names, name=f"/block{self.number}/{operator}", **given))
        self.shapes[name] = shape
        return name

    def conv(self, x: str) -> str:
        batch, channels, height, width = self.shapes[x]
        groups = self.draw(st.sampled_from([n for n in (1, 2, channels) if channels % n == 0]))
        kernel, stride, dilation, pad = self.int(1, 3), self.int(1, 2), self.int(1, 2), self.int(0, 2)
        sides = [(side + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1 for side in (height, width)]
        if min(sides) < 1:
            return x
        out = groups * self.int(1, 3)
        weight = self.weight(out, channels // groups, kernel, kernel)
        given = {"strides": [stride] * 2, "dilations": [dilation] * 2, "pads": [pad] * 4, "group": groups}
        y = self.add("Conv", [x, weight, self.weight(out)], (batch, out, *sides), **given)
        return self.add("Relu", [y], self.shapes[y]) if self.draw(st.booleans()) else y

    def transposed(self, x: str) -> str:
        batch, channels, height, width = self.shapes[x]
        kernel, out = self.int(2, 3), self.int(1, 4)
        sides = [2 * (side - 1) + kernel - 2 for side in (height, width)]
        if min(sides) < 1 or max(sides) > 24:
            return x
        inputs = [x, self.weight(channels, out, kernel, kernel)]
        return self.add("ConvTranspose", inputs, (batch, out, *sides), strides=[2, 2], pads=[1, 1, 1, 1])

    def residual(self, x: str) -> str:
        channels = self.shapes[x][1]
        inputs = [x, self.weight(channels, channels, 3, 3)]
        y = self.add("Conv", inputs, self.shapes[x], pads=[1] * 4)
        return self.add("Add", [x, y], self.shapes[x])

    def clipped(self, x: str) -> str:
        return self.add("Clip", [x, "", self.constant(np.float32(3))], self.shapes[x])

    def resized(self, x: str) -> str:
        """To the size of the image, by arithmetic on shapes."""
        batch, channels, _, _ = self.shapes[x]
        ends = [self.constant(np.array([position])) for position in (0, 2, 4)]
        pieces = []
        for source, first, last in ((x, 0, 1), ("x", 1, 2)):
            whole = self.add("Shape", [source], (4,))
            pieces.append(self.add("Slice", [whole, ends[first], ends[last]], (2,)))
        size = self.add("Concat", pieces, (4,), axis=0)
        return self.add("Resize", [x, "", "", size], (batch, channels, *self.shapes["x"][2:]))

    def mixed(self, x: str) -> str:
        batch, channels, height, width = self.shapes[x]
        out = self.int(1, 4)
        equation = self.draw(st.sampled_from(["nchw, dc -> ndhw", "nc...,dc->nd..."]))
        return self.add("Einsum", [x, self.weight(out, channels)], (batch, out, height, width), equation=equation)

    def pixels(self, x: str) -> str:
        """A product with every pixel's channels: pixels go into the first axis, and come back."""
        batch, channels, height, width = self.shapes[x]
        last = self.add("Transpose", [x], (batch, height, width, channels), perm=[0, 2, 3, 1])
        flat = self.add("Reshape", [last, self.constant(np.array([-1, channels]))], (batch * height * width, channels))
        out = self.int(1, 4)
        if self.draw(st.booleans()):
            y = self.add("MatMul", [flat, self.weight(channels, out)], (0, out))
        elif self.draw(st.booleans()):
            y = self.add("Gemm", [flat, self.weight(out, channels)], (0, out), transB=1)
        else:
            turned = self.add("Transpose", [flat], (channels, 0), perm=[1, 0])
            y = self.add("Gemm", [turned, self.weight(channels, out)], (0, out), transA=1)
        back = self.add("Reshape", [y, self.constant(np.array([-1, height, width, out]))], (batch, height, width, out))
        return self.add("Transpose", [back], (batch, out, height, width), perm=[0, 3, 1, 2])

    def attended(self, x: str) -> str:
        """Pixels by pixels, a product of two tensors that the data make."""
        batch, channels, height, width = self.shapes[x]
        area = height * width
        tokens = self.add("Reshape", [x, self.constant(np.array([0, channels, -1]))], (batch, channels, area))
        turned = self.add("Transpose", [tokens], (batch, area, channels), perm=[0, 2, 1])
        scores = self.add("MatMul", [turned, tokens], (batch, area, area))
        mixed = self.add("MatMul", [tokens, scores], (batch, channels, area))
        return self.add("Reshape", [mixed, self.constant(np.array([0, channels, height, -1]))], self.shapes[x])

    def recurrent(self, x: str) -> str:
        """Columns as a sequence, its last state for every direction."""
        batch, channels, height, width = self.shapes[x]
        operator, gates = self.draw(st.sampled_from([("LSTM", 4), ("GRU", 3), ("RNN", 1)]))
        state, both = self.int(1, 5), self.draw(st.booleans())
        directions = 2 if both else 1
        turned = self.add("Transpose", [x], (width, batch, channels, height), perm=[3, 0, 1, 2])
        shape = self.constant(np.array([width, -1, channels * height]))
        steps = self.add("Reshape", [turned, shape], (width, batch, channels * height))
        weights = [self.weight(directions, gates * state, size) for size in (channels * height, state)]
        how = self.draw(st.sampled_from(["forward", "reverse"]))
        given = {"hidden_size": state, "direction": "bidirectional" if both else how}
        return self.add(operator, [steps, *weights, "", "", ""], (directions, batch, state), outputs=2, **given)

    def classes(self, x: str) -> str:
        size = int(np.prod(self.shapes[x][1:]))
        flat = self.add("Flatten", [x], (1, size), axis=1)
        out = self.int(1, 6)
        return self.add("Gemm", [flat, self.weight(size, out), self.weight(out)], (1, out))


@st.composite
def graphs(draw: Any) -> onnx.ModelProto:
    """A trunk of up to four steps and one to three heads, whose first input axis is fixed, named or written as -1."""
    builder = Builder(draw)
    builder.shapes["x"] = (1, draw(st.integers(1, 4)), draw(st.integers(4, 9)), draw(st.integers(4, 9)))
    steps = [builder.conv, builder.transposed, builder.residual, builder.clipped, builder.resized, builder.mixed]
    steps += [builder.pixels, builder.attended]

    def grown(tensor: str, most: int) -> str:
        for step in draw(st.lists(st.sampled_from(steps), max_size=most)):
            tensor = step(tensor)
        return tensor

    trunk = grown("x", 4)
    ends = [builder.classes, builder.recurrent, builder.conv, builder.pixels, builder.clipped]
    heads = [draw(st.sampled_from(ends))(grown(trunk, 2)) for _ in range(draw(st.integers(1, 3)))]
    batch = draw(st.sampled_from([1, "batch", -1]))
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *builder.shapes["x"][1:]])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in dict.fromkeys(heads) if name != "x"
    ]
    if not outputs:
        return draw(graphs())
    graph = helper.make_graph(builder.nodes, "generated", [image], outputs, builder.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("optimised")


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(model=graphs())
def test_counts_are_those_of_a_run(model: onnx.ModelProto, scratch: Path) -> None:
    check(model)
    check(optimised(model, scratch))


def check(model: onnx.ModelProto) -> None:
    """Compare what each output, the trunk and all of them take with sums over the oracle's nodes."""
    sides = [side.dim_value for side in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    truth = true_macs(model, {"x": np.ones((1, *sides), np.float32)})
    cost = count_graph(model)
    assert cost.total.exact and bool(cost.notes) is (cost.total.flops == 0)
    assert {task: path.flops for task, path in cost.paths.items()} == {
        task: 2 * sum(macs.values()) for task, macs in truth.items()
    }
    merged = {position: macs for found in truth.values() for position, macs in found.items()}
    shared = [macs for position, macs in merged.items() if sum(position in found for found in truth.values()) > 1]
    assert cost.total.flops == 2 * sum(merged.values())
    assert cost.trunk.flops == 2 * sum(shared)


def optimised(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """What ONNX Runtime saves of a model when it has fused what it can, for any processor."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath, options.log_severity_level = str(folder / "model.onnx"), 4
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return onnx.load(folder / "model.onnx")
