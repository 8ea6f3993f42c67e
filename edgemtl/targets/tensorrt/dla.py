"""Placement on the DLA, the fixed-function accelerator of Xavier and Orin: what it takes, and the scales that it needs.

The DLA compiles a region of the network as one node, in INT8 or FP16, and knows no Q/DQ: for INT8 every tensor of the
region needs a scale of its own, which the builder is told beside a graph in floats (NVIDIA/Model-Optimizer#1661,
NVIDIA/TensorRT#2222). What it refuses runs on the GPU, and cuts the region in two. Rules are those of NVIDIA's
"DLA Supported Layers and Restrictions".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import onnx
from onnx import NodeProto

from edgemtl.models.quantization import QuantScheme, Ranges
from edgemtl.runtime import block_of
from edgemtl.targets.tensorrt.graph import View, attribute, view_of
from edgemtl.targets.tensorrt.lint import Problem, problem_at

__all__ = ["DLA_SCHEME", "DLA_VERSIONS", "Placement", "lint_dla", "placement_of"]

DLA_VERSIONS = ("8.5", "10.3")
"""The versions that scales are told to beside the graph, of JetPack 5.1 and 6.2: TensorRT 11 knows Q/DQ alone."""

_ELEMENTWISE = ("Add", "Div", "Max", "Min", "Mul", "Pow", "Sub")
_ACTIVATIONS = ("Clip", "LeakyRelu", "Relu", "Sigmoid", "Tanh")
_POOLS = ("AveragePool", "MaxPool")
_OTHERS = ("BatchNormalization", "Concat", "Conv", "ConvTranspose", "Resize")
_OPERATORS = frozenset((*_ELEMENTWISE, *_ACTIVATIONS, *_POOLS, *_OTHERS))

_STORING = tuple(sorted(_OPERATORS - {"Conv"}))
DLA_SCHEME = QuantScheme("int8", symmetric=True, quantize_outputs=True, quantized_ops=_STORING)
"""How INT8 is simulated for it: whatever is stored between two operators has eight bits."""

_LARGEST_SIDE = 8192
_CONV = {"kernel_shape": (1, 32), "strides": (1, 8), "pads": (0, 31), "dilations": (1, 32)}
_DECONV = {"kernel_shape": (1, 32), "strides": (1, 32), "pads": (0, 0), "dilations": (1, 1), "output_padding": (0, 0)}
_POOL = {"kernel_shape": (1, 8), "strides": (1, 16), "pads": (0, 7)}
_LIMITS = {"Conv": _CONV, "ConvTranspose": _DECONV, **dict.fromkeys(_POOLS, _POOL)}
"""The least and most of each number of an attribute."""
_LARGEST_FACTOR = {"nearest": 32, "linear": 4}
_POSITIONS = {
    "nearest": (("asymmetric", "floor"), ("half_pixel", "round_prefer_floor"), ("half_pixel", "round_prefer_ceil")),
    "linear": (("half_pixel", None),),
}
"""How a resize may map its output to its input, by mode: transformation of coordinates, and rounding."""


@dataclass(frozen=True)
class Placement:
    """The `blocks` that the DLA takes whole, what it `refused`, and the largest magnitude of tensors in eight bits."""

    blocks: tuple[str, ...]
    refused: tuple[Problem, ...]
    magnitudes: Mapping[str, float]


def placement_of(model: onnx.ModelProto, precision: Mapping[str, str], ranges: Ranges) -> Placement:
    """The placement of a graph in floats; every tensor of an INT8 block gets a magnitude, but for the graph's outputs.

    A scale on an output would round what the caller reads (NVIDIA/Deep-Learning-Accelerator-SW#35).
    """
    refused = tuple(lint_dla(model))
    view, names = view_of(model), dict[str, None]()
    outputs = {info.name for info in model.graph.output}
    magnitudes = {}
    stopped = {block_of(problem.node) for problem in refused}
    for node in view.nodes:
        block = block_of(node.name)
        if block:
            names[block] = None
        if precision.get(block) == "int8":
            for name in (*node.input, *node.output):
                if name in ranges.limits and name not in view.constants and name not in outputs:
                    magnitudes[name] = max(map(abs, ranges.limits[name]))
    return Placement(tuple(name for name in names if name not in stopped), refused, magnitudes)


def lint_dla(model: onnx.ModelProto) -> list[Problem]:
    """The nodes that the DLA refuses, each with the rule and what to do; they run on the GPU."""
    view = view_of(model)
    return [problem for node in view.nodes for problem in _refusals(view, node)]


def _refusals(view: View, node: NodeProto) -> Iterator[Problem]:
    """The first rule that a node breaks; what follows from one would only repeat it."""
    for check in (_branch, _operator, _sizes, _numbers, _setting):
        problems = list(check(view, node))
        if problems:
            yield problems[0]
            return


def _branch(view: View, node: NodeProto) -> Iterator[Problem]:
    within = view.within.get(node.output[0], "")
    if within or node.op_type == "If":
        yield problem_at(node, "dla branch", f"it stands inside {within}" if within else "it chooses a branch")


def _operator(view: View, node: NodeProto) -> Iterator[Problem]:
    if node.op_type not in _OPERATORS:
        yield problem_at(node, "dla operator", f"the DLA has no {node.op_type}")


def _sizes(view: View, node: NodeProto) -> Iterator[Problem]:
    for name in (*node.input[:1], *node.output):
        shape = view.shapes.get(name)
        if shape is None or len(shape) != 4:
            yield problem_at(node, "dla shape", f"{name} is no map of channels, height and width")
        elif max(size or 0 for size in shape[1:]) > _LARGEST_SIDE:
            yield problem_at(node, "dla shape", f"{name} has a side above {_LARGEST_SIDE}")


def _numbers(view: View, node: NodeProto) -> Iterator[Problem]:
    for name, (least, most) in _LIMITS.get(node.op_type, {}).items():
        values = list(attribute(node, name, ()))
        if any(not least <= value <= most for value in values):
            allowed = f"{least} to {most}" if least < most else f"{least}"
            yield problem_at(node, "dla limit", f"{name} is {values}, and {allowed} is taken")
    if node.op_type == "ConvTranspose" and attribute(node, "group", 1) != 1:
        yield problem_at(node, "dla limit", "it has groups, which transposed convolutions there have not")


def _setting(view: View, node: NodeProto) -> Iterator[Problem]:
    check = _SETTINGS.get(node.op_type)
    detail = check(view, node) if check else ""
    if detail:
        yield problem_at(node, "dla limit", detail)


def _clip(view: View, node: NodeProto) -> str:
    low = view.array(node.input[1]) if len(node.input) > 1 and node.input[1] in view.constants else None
    return "" if low is not None and float(low) == 0.0 else "it clips below at another value than 0"


def _concat(view: View, node: NodeProto) -> str:
    return "" if attribute(node, "axis", 1) == 1 else "it joins along another axis than channels"


def _resize(view: View, node: NodeProto) -> str:
    mode = attribute(node, "mode", b"nearest").decode()
    if mode not in _POSITIONS:
        return f"its mode is {mode}"
    before, after = view.shapes[node.input[0]], view.shapes[node.output[0]]
    factors = [new / old for new, old in zip(after, before, strict=True) if new and old]
    if factors[:2] != [1, 1] or not all(f.is_integer() and 1 <= f <= _LARGEST_FACTOR[mode] for f in factors[2:]):
        return f"its factors are {factors[2:]}, whole ones up to {_LARGEST_FACTOR[mode]} are taken for {mode}"
    position = attribute(node, "coordinate_transformation_mode", b"half_pixel").decode()
    rounding = attribute(node, "nearest_mode", b"round_prefer_floor").decode()
    if (position, rounding if mode == "nearest" else None) not in _POSITIONS[mode]:
        return f"it is {mode} with {position}, {rounding}"
    return ""


_SETTINGS: dict[str, Callable[[View, NodeProto], str]] = {"Clip": _clip, "Concat": _concat, "Resize": _resize}
