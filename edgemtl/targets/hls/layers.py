"""A traced net as hls4ml's torch front end reads one, flat, with the fixed-point types of each layer."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import torch
from torch import fx, nn

from edgemtl.errors import UnsupportedError
from edgemtl.models.graph import Graph, Node
from edgemtl.models.quantization import Ranges
from edgemtl.targets.hls.fixed import Format, fitting
from edgemtl.targets.hls.resources import FIXED_BITS, INPUT, Product
from edgemtl.traits import Storage

__all__ = ["STORAGE", "HlsNet", "Layer", "flat_net", "typed_layers"]

_HEADROOM, _ROOMY_BITS = 1.5, 12
"""Calibration images are not all images: types of so many bits hold this much more than the largest value seen."""
_BIAS_BITS = 24
STORAGE = Storage(
    weight_bytes=FIXED_BITS["float"] // 8,
    bias_bytes=_BIAS_BITS // 8,
    channel_bytes=_BIAS_BITS // 8,
    bare_channel_bytes=_BIAS_BITS // 8,
    layer_bytes=0,
)
"""Of a project: scales are powers of two, which its types hold, and every layer has biases."""


@dataclass(frozen=True)
class Layer:
    """A layer of the project: its name there, its node, the shape (C, H, W) and the type of what it gives.

    `entering` is the type of what it reads first. A layer with weights has types for them, its bias and its sums, which
    hold every binary place; one that takes a mean sums with places for its quotient, the rest of which is cut.
    """

    name: str
    node: Node
    shape: tuple[int, int, int]
    entering: Format
    result: Format
    weight: Format | None = None
    bias: Format | None = None
    accum: Format | None = None

    @property
    def product(self) -> Product | None:
        """Shape of its products; None where it has none."""
        if self.weight is None:
            return None
        weight = self.node.constants["weight"]
        outputs, kernel = weight.shape[0], (weight.shape[2] if weight.ndim == 4 else 1)
        stride = self.node.attributes["strides"][0] if weight.ndim == 4 else 1
        return Product(
            self.name, weight[0].numel(), outputs, kernel, *self.shape[1:], self.weight.bits, stride,
            input_bits=self.entering.bits,
        )  # fmt: skip


@dataclass(frozen=True)
class HlsNet:
    """A module in the dialect of hls4ml's front end, its input's type, its layers, and how its outputs become a task's.

    `outputs` are, for each tensor of the net's graph, the layer that gives it and by how much the host then shuffles
    channels to pixels (1: not at all). `flattened` are those without height and width.
    """

    module: fx.GraphModule
    input: Format
    input_size: tuple[int, int]
    layers: tuple[Layer, ...]
    outputs: Mapping[str, tuple[str, int]]
    flattened: frozenset[str]

    @property
    def products(self) -> list[Product]:
        """Its layers that multiply."""
        return [product for layer in self.layers if (product := layer.product) is not None]


def flat_net(graph: Graph, precision: Mapping[str, str], ranges: Ranges) -> HlsNet:
    """The graph for hls4ml; raises `UnsupportedError` for an operator that its front end or its streams lack.

    A shuffle of channels to pixels at an output is left to the host, which reorders what it reads anyway; a pooled
    linear layer becomes a 1x1 convolution.
    """
    return _built(graph, precision, ranges).finish()


def typed_layers(graph: Graph, precision: Mapping[str, str], ranges: Ranges) -> tuple[Format, tuple[Layer, ...]]:
    """The type of the image and the layers that a project of the graph has, wherever it has its outputs.

    Raises `UnsupportedError` as `flat_net` does.
    """
    builder = _built(graph, precision, ranges)
    return builder.formats[graph.input], tuple(builder.layers.values())


def _built(graph: Graph, precision: Mapping[str, str], ranges: Ranges) -> _Builder:
    builder = _Builder(graph, precision, ranges)
    for node in graph.nodes:
        builder.add(node)
    return builder


@dataclass
class _Builder:
    """Adds a layer an operator; `values` are the calls that tensors became."""

    graph: Graph
    precision: Mapping[str, str]
    ranges: Ranges
    root: nn.Module = field(default_factory=nn.Module)
    calls: fx.Graph = field(default_factory=fx.Graph)
    values: dict[str, fx.Node] = field(default_factory=dict)
    layers: dict[str, Layer] = field(default_factory=dict)
    shuffled: dict[str, tuple[str, int]] = field(default_factory=dict)
    flattened: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.values[self.graph.input] = self.calls.placeholder(INPUT)
        self.readers = self.graph.readers()
        self.formats = {self.graph.input: self._format(self.graph.input, "float")}
        self.shapes = {self.graph.input: (3, *self.graph.input_size)}
        self.tensors = {self.graph.input: INPUT}
        self.adds = 0

    def add(self, node: Node) -> None:
        add = _OPERATORS.get(node.op)
        if add is None:
            raise _refusal(node, node.op)
        add(self, node)

    def _format(self, tensor: str, precision: str) -> Format:
        bits = FIXED_BITS[precision]
        headroom = _HEADROOM if bits >= _ROOMY_BITS else 1.0
        return fitting(bits, [[headroom * limit for limit in self.ranges[tensor]]])

    def _module(self, node: Node, module: nn.Module, shape: tuple[int, int, int], **types: Format) -> None:
        name = re.sub(r"\W+", "_", node.name)
        self.root.add_module(name, module)
        self.values[node.output] = self.calls.call_module(name, (self.values[node.inputs[0]],))
        self._append(name, node, shape, **types)

    def _append(self, name: str, node: Node, shape: tuple[int, int, int], **types: Format) -> None:
        result = types.pop("result", None) or self._format(node.output, self._precision(node))
        self.layers[name] = Layer(name, node, shape, self.formats[node.inputs[0]], result, **types)
        self.tensors[node.output], self.shapes[node.output], self.formats[node.output] = name, shape, result

    def _precision(self, node: Node) -> str:
        return self.precision.get(node.block, "float")

    def conv(self, node: Node) -> None:
        attributes, weight = node.attributes, node.constants["weight"]
        if attributes["group"] != 1:
            raise _refusal(node, "a grouped (depthwise) convolution", "choose a design with fused blocks, or ")
        outputs, inputs, kernel, _ = weight.shape
        pads, strides = attributes["pads"][:2], attributes["strides"]
        module = nn.Conv2d(inputs, outputs, kernel, strides, pads)
        _, height, width = self.shapes[node.inputs[0]]
        sizes = [
            (side + 2 * pad - kernel) // stride + 1
            for side, pad, stride in zip((height, width), pads, strides, strict=True)
        ]
        self._weighted(node, module, (outputs, sizes[0], sizes[1]))

    def linear(self, node: Node) -> None:
        outputs, inputs = node.constants["weight"].shape
        self.flattened.add(node.output)
        self._weighted(node, nn.Conv2d(inputs, outputs, 1), (outputs, *self.shapes[node.inputs[0]][1:]))

    def _weighted(self, node: Node, module: nn.Conv2d, shape: tuple[int, int, int]) -> None:
        weight = node.constants["weight"].detach()
        bias = node.constants.get("bias", torch.zeros(len(weight))).detach()
        with torch.no_grad():
            module.weight.copy_(weight.view_as(module.weight))
            assert module.bias is not None
            module.bias.copy_(bias)
        entering, bits = self.formats[node.inputs[0]], FIXED_BITS[self._precision(node)]
        weights = fitting(bits, [weight.numpy()])
        fraction = entering.fraction + weights.fraction
        biases = fitting(_BIAS_BITS, [bias.numpy()])
        biases = replace(biases, fraction=min(biases.fraction, fraction))
        width = entering.bits + bits + prod(weight.shape[1:]).bit_length()
        width = 1 + max(width, biases.bits - biases.fraction + fraction)
        self._module(node, module, shape, weight=weights, bias=biases, accum=Format(width, fraction))

    def relu(self, node: Node) -> None:
        self._module(node, nn.ReLU(), self.shapes[node.inputs[0]])

    def sum(self, node: Node) -> None:
        name = "add" if self.adds == 0 else f"add_{self.adds}"  # as torch.fx numbers them
        self.adds += 1
        self.values[node.output] = self.calls.call_function(torch.add, tuple(map(self.values.__getitem__, node.inputs)))
        self._append(name, node, self.shapes[node.inputs[0]])

    def enlarge(self, node: Node) -> None:
        if node.attributes["mode"] != "nearest":
            raise _refusal(node, "an enlargement that interpolates")
        factor = int(node.attributes["factor"])
        channels, height, width = self.shapes[node.inputs[0]]
        shape = (channels, height * factor, width * factor)
        module = nn.Upsample(scale_factor=float(factor), mode="nearest")
        self._module(node, module, shape, result=self.formats[node.inputs[0]])

    def pool(self, node: Node) -> None:
        channels, height, width = self.shapes[node.inputs[0]]
        entering, spare = self.formats[node.inputs[0]], (height * width - 1).bit_length()
        accum = Format(entering.bits + 2 * spare, entering.fraction + spare)  # hls4ml's own default wraps around
        self._module(node, nn.AvgPool2d((height, width)), (channels, 1, 1), accum=accum)

    def shuffle(self, node: Node) -> None:
        if node.output in self.readers:
            raise _refusal(node, "a shuffle of channels to pixels inside the net")
        self._pass(node)
        self.shuffled[node.output] = (self.tensors[node.output], int(node.attributes["blocksize"]))

    def flatten(self, node: Node) -> None:
        if self.shapes[node.inputs[0]][1:] != (1, 1):
            raise _refusal(node, "a flattened image")
        self._pass(node)
        self.flattened.add(node.output)

    def _pass(self, node: Node) -> None:
        """The operator is none of the project's."""
        source = node.inputs[0]
        self.values[node.output], self.tensors[node.output] = self.values[source], self.tensors[source]
        self.shapes[node.output], self.formats[node.output] = self.shapes[source], self.formats[source]

    def finish(self) -> HlsNet:
        tensors = self.graph.output_tensors
        outputs = {tensor: self.shuffled.get(tensor, (self.tensors[tensor], 1)) for tensor in tensors}
        read = {self.tensors[name] for name, nodes in self.readers.items() if any(n.op in _OWN for n in nodes)}
        for tensor, (name, _) in outputs.items():
            if name in read:
                raise UnsupportedError(
                    f"target hls: output {tensor} is read inside the net too, which hls4ml has no output for: choose "
                    "a design whose tasks have decoders of their own"
                )
        self.calls.output(tuple(self.values[tensor] for tensor in tensors))
        module = fx.GraphModule(self.root, self.calls)
        return HlsNet(
            module.eval(),
            self.formats[self.graph.input],
            self.graph.input_size,
            tuple(self.layers.values()),
            outputs,
            frozenset(self.flattened & set(tensors)),
        )


_OPERATORS: Mapping[str, Callable[[_Builder, Node], Any]] = {
    "Add": _Builder.sum,
    "Conv": _Builder.conv,
    "DepthToSpace": _Builder.shuffle,
    "Flatten": _Builder.flatten,
    "Gemm": _Builder.linear,
    "GlobalAveragePool": _Builder.pool,
    "Identity": _Builder._pass,
    "Relu": _Builder.relu,
    "Resize": _Builder.enlarge,
}
_OWN = _OPERATORS.keys() - {"DepthToSpace", "Flatten", "Identity"}


def _refusal(node: Node, what: str, remedy: str = "") -> UnsupportedError:
    return UnsupportedError(
        f"target hls: {what} at {node.name} is not in hls4ml's torch front end: {remedy}export for onnxruntime, "
        "openvino or tensorrt-rtx, which have it"
    )
