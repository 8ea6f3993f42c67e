"""Tiny nets of the kind that users bring, made with onnx.helper and torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from PIL import Image
from torch import Tensor, nn

SIZE = (16, 24)


def weight(name: str, *shape: int, fading: float = 1) -> TensorProto:
    """Random weights that follow from their name and shape, whatever else a test run has drawn.

    Each output channel's are `fading` times those of the one before.
    """
    rng = np.random.default_rng([0, *name.encode(), *shape])
    values = rng.normal(0, 0.4, shape) * (fading ** np.arange(shape[0])).reshape(-1, *[1] * (len(shape) - 1))
    return numpy_helper.from_array(values.astype(np.float32), name)


def model_of(
    nodes: Sequence[onnx.NodeProto],
    outputs: Mapping[str, int],
    weights: Sequence[TensorProto] = (),
    image: Sequence[int | str] = (1, 3, *SIZE),
    inputs: Sequence[onnx.ValueInfoProto] | None = None,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """A model with an input `x`; outputs are given with their type, and without a shape."""
    read = [helper.make_tensor_value_info("x", TensorProto.FLOAT, image)] if inputs is None else inputs
    given = [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()]
    graph = helper.make_graph(list(nodes), "theirs", read, given, list(weights))
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


def write_photos(folder: Path, size: tuple[int, int] = SIZE, count: int = 9) -> Path:
    """A folder of pictures of noise, and of a file that is none; the folder."""
    for number in range(count):
        values = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
        Image.fromarray(values).save(folder / f"{number}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


def three_tasks(image: Sequence[int | str] = (1, 3, *SIZE)) -> onnx.ModelProto:
    """A trunk with a residual sum, a map, a pose of two tensors, and a number; its shapes are computed in the graph."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="stem", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"], name="act"),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="unit", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["b", "c"], ["d"], name="skip"),
        helper.make_node("Conv", ["d", "w3"], ["e"], name="parsing_head"),
        helper.make_node("Resize", ["e", "", "scales"], ["parsing"], name="up", mode="nearest"),
        helper.make_node("GlobalAveragePool", ["d"], ["f"], name="pool"),
        helper.make_node("Shape", ["f"], ["s"], name="shape"),
        helper.make_node("Slice", ["s", "zero", "one"], ["batch"], name="first"),
        helper.make_node("Concat", ["batch", "minus"], ["flat"], name="sizes", axis=0),
        helper.make_node("Reshape", ["f", "flat"], ["g"], name="flatten"),
        helper.make_node("Gemm", ["g", "w4"], ["points"], name="points_head"),
        helper.make_node("Sigmoid", ["points"], ["pose.score"], name="score"),
        helper.make_node("Identity", ["points"], ["pose.points"], name="copy"),
        helper.make_node("ArgMax", ["e"], ["best"], name="best", axis=1, keepdims=0),
    ]
    constants = [
        weight("w1", 8, 3, 3, 3),
        weight("w2", 8, 8, 3, 3),
        weight("w3", 5, 8, 1, 1),
        weight("w4", 8, 4),
        numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"),
        *(numpy_helper.from_array(np.array([value]), name) for name, value in (("zero", 0), ("one", 1), ("minus", -1))),
    ]
    outputs = {"parsing": TensorProto.FLOAT, "pose.points": TensorProto.FLOAT, "pose.score": TensorProto.FLOAT}
    return model_of(nodes, {**outputs, "best": TensorProto.INT64}, constants, image)


def residual_net() -> onnx.ModelProto:
    """A trunk of 24 channels with a residual sum, a map and a pose, as an exporter for one image writes it.

    The later a channel, the less it adds, so that half of them can go and the outputs stay near, as in a net that has
    learnt.
    """
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="stem", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"], name="act"),
        helper.make_node("Conv", ["b", "w2"], ["c"], name="unit", pads=[1, 1, 1, 1]),
        helper.make_node("Add", ["b", "c"], ["d"], name="skip"),
        helper.make_node("Conv", ["d", "w3"], ["map"], name="map_head"),
        helper.make_node("Conv", ["d", "w4"], ["e"], name="narrow", strides=[2, 2]),
        helper.make_node("Relu", ["e"], ["f"], name="act2"),
        helper.make_node("GlobalAveragePool", ["f"], ["g"], name="pool"),
        helper.make_node("Flatten", ["g"], ["h"], name="flatten"),
        helper.make_node("Gemm", ["h", "w5"], ["pose.points"], name="points_head"),
        helper.make_node("Sigmoid", ["pose.points"], ["pose.score"], name="score"),
    ]
    trunk = {"w1": (24, 3, 3, 3), "w2": (24, 24, 3, 3), "w4": (24, 24, 3, 3)}
    weights = [weight(name, *shape, fading=0.8) for name, shape in trunk.items()]
    weights += [weight("w3", 2, 24, 1, 1), weight("w5", 24, 4)]
    return model_of(nodes, dict.fromkeys(("map", "pose.points", "pose.score"), TensorProto.FLOAT), weights)


def regions_and_sides() -> onnx.ModelProto:
    """A net of two tasks of `chain`'s data: a map of half the image's size, and a class of two; 64x64."""
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="stem", pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"], name="act"),
        helper.make_node("Conv", ["b", "w2"], ["regions"], name="map"),
        helper.make_node("GlobalAveragePool", ["b"], ["c"], name="pool"),
        helper.make_node("Flatten", ["c"], ["d"], name="flatten"),
        helper.make_node("Gemm", ["d", "w3"], ["side"], name="points"),
    ]
    weights = [weight("w1", 16, 3, 3, 3), weight("w2", 2, 16, 1, 1), weight("w3", 16, 2)]
    outputs = dict.fromkeys(("regions", "side"), TensorProto.FLOAT)
    return model_of(nodes, outputs, weights, (1, 3, 64, 64))


def many_tasks(count: int) -> onnx.ModelProto:
    """As many heads on one convolution, each a number of its own."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="stem", strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["a"], ["f"], name="pool"),
    ]
    names = [f"head{number}" for number in range(count)]
    nodes += [helper.make_node("Conv", ["f", f"{name}.w"], [name], name=name) for name in names]
    weights = [weight("w", 4, 3, 3, 3), *(weight(f"{name}.w", 1, 4, 1, 1) for name in names)]
    return model_of(nodes, dict.fromkeys(names, TensorProto.FLOAT), weights)


def channels_last() -> onnx.ModelProto:
    """As TensorFlow's exporters write it: bytes in, height before channels, one output that is a vector."""
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["f"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w"], ["image"], name="c"),
        helper.make_node("ReduceMean", ["image"], ["m"], axes=[2, 3], keepdims=0),
        helper.make_node("Squeeze", ["m", "axis"], ["Identity:0"]),
        helper.make_node("Relu", ["image"], ["Identity_1:0"]),
    ]
    read = [helper.make_tensor_value_info("x", TensorProto.UINT8, ["unk__1", *SIZE, 3])]
    constants = [weight("w", 4, 3, 3, 3), numpy_helper.from_array(np.array([0]), "axis")]
    return model_of(nodes, {"Identity:0": TensorProto.FLOAT, "Identity_1:0": TensorProto.FLOAT}, constants, inputs=read)


def saved(model: onnx.ModelProto, folder: Path, name: str = "theirs.onnx") -> Path:
    onnx.save(model, folder / name)
    return folder / name


class SomeBiases(nn.Module):
    """Layers with a bias, without one, and with that of a normalisation, in one block and in blocks of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1, bias=False), nn.BatchNorm2d(24), nn.ReLU())
        self.expand = nn.Sequential(nn.Conv2d(24, 32, 1), nn.ReLU())
        self.depthwise = nn.Sequential(nn.Conv2d(32, 32, 3, 1, 1, groups=32, bias=False), nn.BatchNorm2d(32), nn.ReLU())
        self.project = nn.Conv2d(32, 24, 1, bias=False)
        self.parsing, self.hidden, self.points = nn.Conv2d(24, 5, 1), nn.Linear(24, 16), nn.Linear(16, 4, bias=False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        trunk = self.stem(image)
        trunk = trunk + self.project(self.depthwise(self.expand(trunk)))
        return {"parsing": self.parsing(trunk), "points": self.points(self.hidden(trunk.mean((2, 3))).relu())}


def build_some_biases() -> nn.Module:
    torch.manual_seed(0)
    return SomeBiases()


@dataclass
class Predictions:
    """The outputs of `TwoHeads`."""

    parsing: Tensor
    pose: dict[str, Tensor]


class TwoHeads(nn.Module):
    """A small trained module of a user."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.GroupNorm(2, 8), nn.SiLU())
        self.unit = nn.Conv2d(8, 8, 3, 1, 1)
        self.parsing, self.points = nn.ConvTranspose2d(8, 5, 2, 2), nn.Linear(8, 4)

    def forward(self, image: Tensor) -> Predictions:
        trunk = self.stem(image)
        trunk = trunk + self.unit(trunk)
        points = self.points(trunk.mean((2, 3)))
        return Predictions(self.parsing(trunk), {"points": points, "score": points.sigmoid()})


class Conditional(TwoHeads):
    def forward(self, image: Tensor) -> Predictions:
        if image.mean() > 0:
            image = 2 * image
        return super().forward(image)


class WithoutCounterpart(TwoHeads):
    def forward(self, image: Tensor) -> Tensor:  # type: ignore[override]
        return torch.linalg.svdvals(self.stem(image))


class Normalized(nn.Module):
    """Outputs that are called as the exporter calls tensors of its own, and as the image."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(SIZE[1])

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"norm": self.norm(image), "mean": image.mean((2, 3)), "image": image + 1}


class Dropping(TwoHeads):
    def forward(self, image: Tensor) -> Predictions:
        return super().forward(nn.functional.dropout(image, 0.5, training=True))


def build() -> nn.Module:
    torch.manual_seed(0)
    return TwoHeads()


def build_conditional() -> nn.Module:
    return Conditional()


def build_without_counterpart() -> nn.Module:
    return WithoutCounterpart()


def build_normalized() -> nn.Module:
    return Normalized()


def build_dropping() -> nn.Module:
    return Dropping()


def build_without_file() -> nn.Module:
    return torch.load("weights-that-are-not-there.pt")


def build_for_four_channels() -> nn.Module:
    return nn.Conv2d(4, 2, 1)


def build_circular() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")


class Grey(nn.Module):
    """A map and a vector from an image of one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 16, 3, 1, 1), nn.ReLU())
        self.parsing, self.points = nn.Conv2d(16, 5, 1), nn.Linear(16, 4)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(N, 1, H, W) to (N, 5, H/2, W/2) and (N, 4)."""
        trunk = self.stem(image)
        return {"parsing": self.parsing(trunk), "points": self.points(trunk.mean((2, 3)))}


def build_grey() -> nn.Module:
    torch.manual_seed(0)
    return Grey()


class WithText(nn.Module):
    """A module that returns text beside its tensor."""

    def forward(self, image: Tensor) -> dict[str, Tensor | str]:
        """(N, 3, H, W) to itself, and a word."""
        return {"image": image + 1, "name": "theirs"}


def build_with_text() -> nn.Module:
    return WithText()


def build_traced() -> nn.Module:
    torch.manual_seed(0)
    traced: nn.Module = torch.jit.trace(nn.Conv2d(3, 4, 3), torch.zeros(1, 3, *SIZE))
    return traced


def build_quantized() -> nn.Module:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    made: nn.Module = torch.ao.quantization.quantize_dynamic(layers, {nn.Linear}, dtype=torch.qint8)
    return made


def build_nothing() -> str:
    return "a net"


def awkward() -> onnx.ModelProto:
    """Operators that a quantizer of one's own graphs never meets.

    Batch normalisation, constant factors and sums behind a convolution, one bias of two layers, weights in rows, a
    transposed convolution, a sum with a constant, a concatenation, sizes changed by a cubic rule, and texts of a
    foreign exporter.
    """
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="stem", pads=[1, 1, 1, 1], strides=[2, 2], doc_string="Gelu"),
        helper.make_node("BatchNormalization", ["a", "g", "b8", "m", "v"], ["b"], name="norm"),
        helper.make_node("Mul", ["b", "factor"], ["c"], name="factor"),
        helper.make_node("Add", ["shift", "c"], ["d"], name="shift"),
        helper.make_node("Clip", ["d", "low", "high"], ["e"], name="act"),
        helper.make_node("Conv", ["e", "w2", "b8"], ["f"], name="one", pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["e", "w3", "b8"], ["h"], name="two"),
        helper.make_node("Concat", ["f", "h"], ["i"], name="both", axis=1),
        helper.make_node("ConvTranspose", ["i", "w4"], ["j"], name="up", strides=[2, 2]),
        helper.make_node("Resize", ["j", "", "scales"], ["parsing"], name="cubic", mode="cubic"),
        helper.make_node("MaxPool", ["f"], ["k"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["k"], ["l"], name="mean"),
        helper.make_node("Flatten", ["l"], ["n"], name="flat"),
        helper.make_node("Gemm", ["n", "w5", "b4"], ["points"], name="head"),
        helper.make_node("Gemm", ["n", "w5"], ["half"], name="halved", alpha=0.5),
        helper.make_node("MatMul", ["n", "w6"], ["o"], name="dense"),
        helper.make_node("Add", ["o", "b4"], ["rows"], name="rows"),
    ]
    constants = [
        weight("w1", 8, 3, 3, 3),
        weight("w2", 8, 8, 3, 3),
        weight("w3", 8, 8, 1, 1),
        weight("w4", 16, 5, 2, 2),
        weight("w5", 8, 4),
        weight("w6", 8, 4),
        *(weight(name, 8) for name in ("g", "b8", "m")),
        weight("b4", 4),
        weight("shift", 1, 8, 1, 1),
        *(numpy_helper.from_array(np.array(value, np.float32), name) for name, value in (("low", 0.0), ("high", 3.0))),
        numpy_helper.from_array(np.array([1.5], np.float32), "factor"),
        numpy_helper.from_array(np.full(8, 0.7, np.float32), "v"),
        numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales"),
    ]
    return model_of(nodes, dict.fromkeys(("parsing", "points", "half", "rows"), TensorProto.FLOAT), constants)


def lost_in_rounding() -> onnx.ModelProto:
    """A map whose weights, but for one of each filter, are less than half of what eight bits tell from nothing.

    Together they are most of the output, so that INT8 loses it, and training through eight bits has only to raise some.
    """
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["a"], name="stem", strides=[2, 2]),
        helper.make_node("Relu", ["a"], ["b"], name="act"),
        helper.make_node("Conv", ["b", "small"], ["map"], name="head"),
    ]
    values = np.random.default_rng(0).uniform(0.001, 0.003, (32, 16, 3, 3)).astype(np.float32)
    values[:, 0, 1, 1] = 1
    stem = numpy_helper.to_array(weight("w1", 16, 3, 3, 3)).copy()
    stem[0] /= 20  # what the largest weight reads
    weights = [numpy_helper.from_array(stem, "w1"), numpy_helper.from_array(values, "small")]
    return model_of(nodes, {"map": TensorProto.FLOAT}, weights)
