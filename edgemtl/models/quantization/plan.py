"""Where a target's INT8 stands: one plan that the simulation, every ONNX writer and the tests read.

A target states its habits in a `QuantScheme`. `plan_quantization` turns them, a precision for each block and the graph
into places: tensors that are stored in eight bits, inputs that are rounded on the way into one operator, and operators
whose weights are eight bits. Rounding is affine, q = clamp(round_half_even(x / scale) + zero, low, high).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import UserError, unknown_name

__all__ = [
    "HALF_LARGEST",
    "HALF_ROOM",
    "WEIGHTED",
    "Operator",
    "Parameters",
    "QuantPlan",
    "QuantScheme",
    "Ranges",
    "check_precision",
    "parameters_of",
    "plan_quantization",
    "weight_scales",
]

WEIGHTED = ("Conv", "Gemm")
_ACTIVATIONS = ("Relu", "Clip")
HALF_LARGEST = 65504.0
"""The largest number of FP16."""
HALF_ROOM = 8.0
"""How far beyond what calibration met a value may go: its images are few, and its ranges clipped."""
_LARGEST_BIAS = 2**30
"""In steps; half of int32, whose other half holds the sum of 33,000 products of eight bits."""


class Operator(Protocol):
    """The facts about an operator that a plan needs; a graph's `Node` and the ONNX writer's records have them."""

    @property
    def name(self) -> str:
        """Unique in the graph."""
        ...

    @property
    def op(self) -> str:
        """The ONNX operator."""
        ...

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the tensors it reads."""
        ...

    @property
    def output(self) -> str:
        """Name of the output tensor."""
        ...

    @property
    def block(self) -> str:
        """The block of the net that it belongs to."""
        ...


@dataclass(frozen=True)
class QuantScheme:
    """How a runtime wants INT8 written on a device.

    Weights are symmetric int8, of at most `weight_limit` steps, with a scale for each output channel. Activations are
    `uint8` with a zero point, or `int8`, symmetric where `symmetric`. With `quantize_outputs` a convolution's output
    (after its activation) is rounded too and stays in eight bits for every reader; without it only what enters a
    convolution is rounded. Operators in `quantized_ops` compute on rounded inputs as well (`Add`), those in
    `passthrough_ops` compute on eight bits as they are (`Resize`, `DepthToSpace`). The bias is rounded to int32 in
    steps of input scale times weight scale, or stays `float`. What enters is `divided` by its scale before it is
    rounded, or `scaled` and shifted, as OpenVINO's FakeQuantize does. `needs` are what a processor must have for its
    engines to compute this (`edgemtl.arithmetic.NEEDS`).
    """

    activation: Literal["uint8", "int8"] = "uint8"
    symmetric: bool = False
    quantize_outputs: bool = False
    quantized_ops: tuple[str, ...] = ()
    passthrough_ops: tuple[str, ...] = ()
    bias: Literal["float", "int32"] = "float"
    rounding: Literal["divided", "scaled"] = "divided"
    weight_limit: int = 127
    needs: tuple[str, ...] = ()

    @property
    def levels(self) -> tuple[int, int]:
        """Lowest and highest eight-bit value."""
        if self.activation == "uint8":
            return 0, 255
        return (-127, 127) if self.symmetric else (-128, 127)

    @property
    def channel_bytes(self) -> int:
        """Bytes for an output channel beside its weights: a scale and a zero point, and a bias with its own or none."""
        return 4 + 1 + (4 if self.bias == "float" else 3 * 4)


@dataclass(frozen=True)
class Ranges:
    """Lowest and highest value of each tensor, as calibration found (and clipped) them."""

    limits: Mapping[str, tuple[float, float]]

    def __getitem__(self, tensor: str) -> tuple[float, float]:
        """Limits of one tensor; raises `UserError` where calibration did not see it."""
        if tensor not in self.limits:
            raise UserError(
                f"no calibrated range for tensor {tensor!r}: calibrate the net that is exported, all tasks included"
            )
        return self.limits[tensor]

    def fit_half(self, tensor: str) -> bool:
        """Whether FP16 holds a tensor's values, with `HALF_ROOM` to spare; so it does where calibration saw none."""
        low, high = self.limits.get(tensor, (0.0, 0.0))
        return HALF_ROOM * max(-low, high) <= HALF_LARGEST


@dataclass(frozen=True)
class Parameters:
    """Affine rounding of one tensor: real = (q - zero) * scale, q within low..high."""

    scale: float
    zero: int
    low: int
    high: int


@dataclass(frozen=True)
class QuantPlan:
    """`quantized` tensors are eight bits for every reader, `entries` (operator, input number) only on the way in.

    `weights` are operators with int8 weights, and `source` names the tensor whose range a tensor is rounded with
    (itself, or what was handed through unchanged).
    """

    quantized: frozenset[str]
    entries: frozenset[tuple[str, int]]
    weights: frozenset[str]
    source: Mapping[str, str]


def check_precision(
    precision: Mapping[str, str],
    blocks: Iterable[str],
    block_precisions: Sequence[str],
    engine_precisions: Sequence[str],
    target: str,
) -> None:
    """Raise `UserError` where `precision` names an unknown block or a precision that `target` does not honour."""
    names = list(blocks)
    engine = precision.get("engine", engine_precisions[0])
    if engine not in engine_precisions:
        raise UserError(f"target {target} has no engine precision {engine!r}: allowed: {', '.join(engine_precisions)}")
    for block, value in precision.items():
        if block != "engine" and block not in names:
            raise unknown_name("block in precision", block, names)
        if block != "engine" and value not in block_precisions:
            allowed = ", ".join(block_precisions)
            raise UserError(f"target {target} has no precision {value!r} for block {block}: allowed: {allowed}")


def plan_quantization(
    operators: Sequence[Operator], precision: Mapping[str, str], scheme: QuantScheme, outputs: Iterable[str]
) -> QuantPlan:
    """Places of INT8 in a graph whose blocks have these precisions; `outputs` are tensors that leave the graph."""
    chosen = {name for name, value in precision.items() if value == "int8" and name != "engine"}
    eight = [operator for operator in operators if operator.block in chosen]
    readers: dict[str, list[Operator]] = {}
    for operator in operators:
        for name in operator.inputs:
            readers.setdefault(name, []).append(operator)
    weights = frozenset(operator.name for operator in eight if operator.op in WEIGHTED)
    quantized = _quantized(eight, readers, scheme, set(outputs)) if scheme.quantize_outputs else {}
    entries = {
        (operator.name, number)
        for operator in eight
        for number, name in enumerate(operator.inputs)
        if name not in quantized and (operator.name in weights or operator.op in scheme.quantized_ops)
    }
    return QuantPlan(frozenset(quantized), frozenset(entries), weights, quantized)


def _quantized(
    eight: Sequence[Operator], readers: Mapping[str, list[Operator]], scheme: QuantScheme, outputs: set[str]
) -> dict[str, str]:
    """Tensors that stay in eight bits, each with the tensor whose range it takes."""
    quantized: dict[str, str] = {}
    followed: set[str] = set()
    for operator in eight:
        after = readers.get(operator.output, [])
        if operator.op in ("Conv", *scheme.quantized_ops):
            fused = (
                len(after) == 1 and after[0].op in _ACTIVATIONS and after[0] in eight and operator.output not in outputs
            )
            if fused:
                followed.add(after[0].name)
            else:
                quantized[operator.output] = operator.output
        elif operator.name in followed:
            quantized[operator.output] = operator.output
        elif operator.op in scheme.passthrough_ops and operator.inputs[0] in quantized:
            quantized[operator.output] = quantized[operator.inputs[0]]
    return quantized


def parameters_of(limits: tuple[float, float], scheme: QuantScheme) -> Parameters:
    """Scale and zero point of a tensor with these limits; zero is always exact, so padding stays zero."""
    low, high = scheme.levels
    least, most = min(limits[0], 0.0), max(limits[1], 0.0)
    if scheme.symmetric:
        scale = np.float32(max(-least, most, 1e-8) / high)
        return Parameters(float(scale), 0, low, high)
    scale = np.float32(max(most - least, 1e-8) / (high - low))
    zero = int(np.clip(np.rint(low - least / float(scale)), low, high))
    return Parameters(float(scale), zero, low, high)


def weight_scales(
    weight: NDArray[np.float32], scheme: QuantScheme, bias: NDArray[np.float32] | None, entering: Parameters
) -> NDArray[np.float32]:
    """Scale of each output channel (axis 0) of symmetric int8 weights: largest magnitude over the scheme's limit.

    Where the scheme rounds `bias` in steps of this scale times that of what is `entering`, a channel of tiny weights
    has a larger one: so many steps of its bias would not fit into int32, together with the sum of its products.
    """
    largest = np.abs(weight.reshape(len(weight), -1)).max(axis=1)
    scales = np.maximum(largest, 1e-8) / scheme.weight_limit
    if bias is not None and scheme.bias == "int32":
        scales = np.maximum(scales, np.abs(bias) / (entering.scale * _LARGEST_BIAS))
    return np.asarray(scales, np.float32)
