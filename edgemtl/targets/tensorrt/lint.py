"""An ONNX model against the rules of a version of TensorRT: each problem with its node, rule and remedy.

The rules themselves are data (`rules`); here stands how each is looked for. What passes may still meet a defect of the
builder, which only a build shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto

from edgemtl.errors import UnsupportedError
from edgemtl.jetpack import version_of
from edgemtl.targets.tensorrt.generations import generation_of
from edgemtl.targets.tensorrt.graph import View, attribute, view_of
from edgemtl.targets.tensorrt.rules import (
    AXES,
    CONSTANT_INPUTS,
    DLA_REMEDIES,
    LIMITS,
    OPERATORS,
    REFUSED_TYPES,
    REMEDIES,
    RESIZE,
)

__all__ = ["Problem", "check_graph", "lint", "problem_at"]

_SHOWN = 3
_EIGHT_BIT = (TensorProto.INT8, TensorProto.UINT8)
_IN_FLOAT = "DequantizeLinear"


@dataclass(frozen=True)
class Problem:
    """A rule that a node breaks; `node` is empty where it is the whole model."""

    node: str
    op: str
    rule: str
    detail: str

    @property
    def remedy(self) -> str:
        """The remedy of the rule."""
        return {**REMEDIES, **DLA_REMEDIES}[self.rule]

    def __str__(self) -> str:
        where = f"{self.op} at {self.node}" if self.node else "the model"
        return f"{where} breaks the rule {self.rule!r}: {self.detail}; {self.remedy}"


Check = Callable[[View, str], Iterator[Problem]]


def lint(model: onnx.ModelProto, version: str) -> list[Problem]:
    """The rules of TensorRT `version` ("8.5", "10.3.0") that a model breaks, in the order of its nodes.

    Raises `UserError` for a version that is older than all that are known.
    """
    generation_of(version)
    view = view_of(model)
    return [problem for check in _CHECKS for problem in check(view, version)]


def check_graph(model: onnx.ModelProto, versions: Iterable[str]) -> None:
    """Raise `UnsupportedError` where a version of TensorRT refuses the model: a line for each of its first problems."""
    for version in versions:
        problems = lint(model, version)
        if problems:
            lines = [f"target tensorrt: TensorRT {version}: {problem}" for problem in problems[:_SHOWN]]
            more = [f"and {len(problems) - _SHOWN} more of them"] if len(problems) > _SHOWN else []
            raise UnsupportedError(*lines, *more)


def _before(version: str, first: str | None) -> bool:
    """Whether `version` comes before the `first` that has something (None: none has it)."""
    return first is None or version_of(version) < version_of(first)


def problem_at(node: NodeProto, rule: str, detail: str) -> Problem:
    """The problem of a rule that a node breaks."""
    return Problem(node.name or node.output[0], node.op_type, rule, detail)


def _opset(view: View, version: str) -> Iterator[Problem]:
    oldest, newest = generation_of(version).opsets
    if not oldest <= view.opset <= newest:
        yield Problem("", "", "opset", f"it is of opset {view.opset}, and {oldest} to {newest} are read")


def _operators(view: View, version: str) -> Iterator[Problem]:
    for node in view.nodes:
        if node.domain not in ("", "ai.onnx"):
            yield problem_at(node, "domain", f"operators of {node.domain} are not ONNX's")
        elif node.op_type not in OPERATORS:
            others = "the target onnxruntime has it" if _is_standard(node.op_type) else "no target has it"
            yield problem_at(node, "no operator", f"no version of TensorRT has it, {others}")
        elif _before(version, OPERATORS[node.op_type]):
            first = OPERATORS[node.op_type]
            yield problem_at(node, "operator", f"it needs TensorRT {first} or newer, the target onnxruntime has it too")


def _is_standard(op: str) -> bool:
    return onnx.defs.has(op)


def _constants(view: View, version: str) -> Iterator[Problem]:
    for node in view.nodes:
        for (op, number), first in CONSTANT_INPUTS.items():
            if node.op_type == op and len(node.input) > number and _before(version, first):
                name = node.input[number]
                if name and name not in view.constants:
                    yield problem_at(node, "constant", f"its input {name} is computed")


def _types(view: View, version: str) -> Iterator[Problem]:
    for node in view.nodes:
        for name in (*node.output, *(name for name in node.input if name in view.constants or name in view.inputs)):
            kind = view.kinds.get(name, TensorProto.UNDEFINED)
            if kind in REFUSED_TYPES and _before(version, REFUSED_TYPES[kind]):
                yield problem_at(node, "type", f"{name} is {TensorProto.DataType.Name(kind)}")
        bytes_read = [name for name in node.input if view.kinds.get(name) == TensorProto.UINT8]
        if bytes_read and node.op_type not in ("Cast", "QuantizeLinear", "DequantizeLinear"):
            yield problem_at(node, "type", f"{bytes_read[0]} is UINT8, which Cast alone reads")
        if node.op_type == "TopK" and _before(version, "8.6") and view.kinds.get(node.input[0]) in _INTEGERS:
            yield problem_at(node, "type", f"{node.input[0]} is of integers, which TopK reads from TensorRT 8.6 on")


_INTEGERS = (TensorProto.INT32, TensorProto.INT64)


def _shapes(view: View, version: str) -> Iterator[Problem]:
    for name in view.inputs:
        if not _is_fixed(view.shapes.get(name)):
            yield Problem(name, "input", "shape", f"its shape is {_shown(view.shapes.get(name))}")
    for node in view.nodes:
        for name in node.output:
            shape = view.shapes.get(name)
            if name and not _is_fixed(shape):
                yield problem_at(node, "shape", f"{name} is of shape {_shown(shape)}")
            elif shape is not None and len(shape) > LIMITS["rank"]:
                yield problem_at(node, "limit", f"{name} has {len(shape)} dimensions, {LIMITS['rank']} are allowed")


def _is_fixed(shape: tuple[int | None, ...] | None) -> bool:
    return shape is not None and all(shape)


def _shown(shape: tuple[int | None, ...] | None) -> str:
    if shape is None:
        return "unknown"
    return "x".join("?" if size is None else str(size) for size in shape)


def _attributes(view: View, version: str) -> Iterator[Problem]:
    """Limits of single operators."""
    for node in view.nodes:
        if node.op_type == "TopK" and node.input[1] in view.constants:
            count = int(view.array(node.input[1]).reshape(-1)[0])
            if count > LIMITS["TopK"]:
                yield problem_at(node, "limit", f"it gives {count}, at most {LIMITS['TopK']} are allowed")
        if node.op_type.startswith("Scatter") and attribute(node, "reduction", b"none") != b"none":
            yield problem_at(node, "scatter", "it scatters with a reduction")
        if node.op_type == "Resize":
            for name, allowed in RESIZE.items():
                value = attribute(node, name, allowed[0].encode()).decode()
                if value not in allowed:
                    yield problem_at(node, "resize", f"{name} is {value}, and {', '.join(allowed)} are known")


def _rounding(view: View, version: str) -> Iterator[Problem]:
    """Scales and zero points of each `QuantizeLinear` and `DequantizeLinear`."""
    for node in view.nodes:
        if node.op_type not in ("QuantizeLinear", _IN_FLOAT):
            continue
        if len(node.input) < 3 or not node.input[2]:
            yield problem_at(node, "zero point", "it has none, and is unsigned or not read")
        elif node.input[2] not in view.constants:
            yield problem_at(node, "zero point", f"{node.input[2]} is computed")
        elif view.kinds[node.input[2]] != TensorProto.INT8:
            name = TensorProto.DataType.Name(view.kinds[node.input[2]])
            yield problem_at(node, "zero point", f"{node.input[2]} is {name}, INT8 is needed")
        elif view.array(node.input[2]).any():
            yield problem_at(node, "zero point", f"{node.input[2]} is {view.array(node.input[2]).flat[0]}")
        yield from _scale(view, node)
        if view.kinds.get(node.input[1]) == TensorProto.FLOAT16 and not generation_of(version).strongly_typed:
            yield problem_at(node, "half scales", f"{node.input[1]} is FP16, which is read from TensorRT 10 on")


def _scale(view: View, node: NodeProto) -> Iterator[Problem]:
    if node.input[1] not in view.constants:
        yield problem_at(node, "scale", f"{node.input[1]} is computed")
        return
    scale = view.array(node.input[1])
    if (np.asarray(scale, np.float64) <= 0).any():
        yield problem_at(node, "scale", f"{node.input[1]} is not positive")
    if scale.size == 1:
        return
    axis = int(attribute(node, "axis", 1))
    shape = view.shapes.get(node.input[0]) or ()
    if node.input[0] not in view.constants:
        yield problem_at(node, "scale", f"it has {scale.size} scales for a tensor that is computed")
    elif axis >= len(shape) or shape[axis] != scale.size:
        yield problem_at(node, "scale", f"it has {scale.size} scales along axis {axis} of {_shown(shape)}")
    for reader in view.readers.get(node.output[0], ()):
        wanted = AXES.get(reader.op_type, axis)
        wanted = 1 - wanted if reader.op_type == "Gemm" and not attribute(reader, "transB", 0) else wanted
        if axis != wanted:
            yield problem_at(
                node, "scale", f"its scales stand along axis {axis}, output channels of {reader.name} on {wanted}"
            )


def _placement(view: View, version: str) -> Iterator[Problem]:
    """Where rounding stands: eight-bit tensors, weights, sums."""
    for node in view.nodes:
        if node.op_type == "QuantizeLinear":
            for reader in view.readers.get(node.output[0], ()):
                if reader.op_type != _IN_FLOAT:
                    yield problem_at(node, "rounded tensor", f"{reader.op_type} {reader.name} reads it as it is")
        if node.op_type in AXES and _is_rounded(view, node.input[1]) and not _is_rounded(view, node.input[0]):
            yield problem_at(node, "weights", f"{node.input[1]} is rounded and {node.input[0]} is not")
        if node.op_type == "Add" and len({_is_rounded(view, name) for name in node.input}) == 2:
            terms = [name for name in node.input if name not in view.constants]
            if len(terms) == 2:
                (plain,) = (name for name in node.input if not _is_rounded(view, name))
                yield problem_at(node, "sum", f"{plain} is not rounded, the other input is")


def _is_rounded(view: View, name: str) -> bool:
    writer = view.writers.get(name)
    return writer is not None and writer.op_type == _IN_FLOAT


def _conditions(view: View, version: str) -> Iterator[Problem]:
    for node in view.nodes:
        within = view.within.get(node.output[0], "")
        if within and node.op_type == "Attention":
            yield problem_at(node, "Attention in If", f"it stands inside {within}")
        if node.op_type == "If":
            if within:
                yield problem_at(node, "If in If", f"it stands inside {within}")
            yield from _branches(view, node)
        for name in node.input:
            crosses = view.kinds.get(name) in _EIGHT_BIT and name not in view.inputs
            if (
                within
                and crosses
                and view.within.get(name, "") != within
                and node.op_type in ("QuantizeLinear", _IN_FLOAT)
            ):
                yield problem_at(node, "rounded in If", f"{name} comes from outside of {within}")


def _branches(view: View, node: NodeProto) -> Iterator[Problem]:
    branches = [attribute(node, name, onnx.GraphProto()) for name in ("then_branch", "else_branch")]
    for output, *names in zip(node.output, *([info.name for info in each.output] for each in branches), strict=False):
        shapes, kinds = ({table.get(name) for name in names} for table in (view.shapes, view.kinds))
        if len(set(names)) < len(names):
            yield problem_at(node, "branches", f"both give {names[0]} for {output}")
        if len(shapes) > 1 or len(kinds) > 1:
            yield problem_at(node, "branches", f"{' and '.join(names)} differ in type or shape")
        if kinds & set(_EIGHT_BIT):
            yield problem_at(node, "rounded in If", f"{output} has eight bits")


_CHECKS: tuple[Check, ...] = (
    _opset,
    _operators,
    _constants,
    _types,
    _shapes,
    _attributes,
    _rounding,
    _placement,
    _conditions,
)
