"""One layer of all experts as a batched matrix product: how it is written, in float and in INT8.

In INT8 every expert keeps its own scales, so that the product computes what separate layers did: those of what it reads
are along the first axis, those of its weights along the first and the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, numpy_helper

__all__ = ["Layer", "StackWriter"]


@dataclass(frozen=True)
class Layer:
    """A linear layer of one expert: the `rounding` of what it reads (none in float), its weights as stored.

    These are a constant in float, or one in eight bits with its scales, and zero points that are 0.
    """

    gemm: NodeProto
    rounding: tuple[NodeProto, ...]
    stored: tuple[str, ...]

    @property
    def nodes(self) -> tuple[NodeProto, ...]:
        """Its operators."""
        return (*self.rounding, self.gemm)

    @property
    def weight(self) -> str:
        """The name of its weights."""
        return self.stored[0]

    @property
    def output(self) -> str:
        """The tensor that it gives."""
        return str(self.gemm.output[0])


class StackWriter:
    """Writes operators, and the constants that they read, for `count` experts.

    With `stored_joined` weights become one constant; else each expert's stay, and operators join them.
    """

    def __init__(
        self, graph: onnx.GraphProto, constants: dict[str, TensorProto], mark: str, count: int, stored_joined: bool
    ) -> None:
        self.nodes: list[NodeProto] = []
        self._graph, self._constants, self._mark = graph, constants, mark
        self._count, self._stored_joined = count, stored_joined

    def step(self, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """One operator; the name of its output."""
        self.nodes.append(helper.make_node(op, inputs, [output], name=output, doc_string=self._mark, **attributes))
        return output

    def shaped(self, source: str, output: str, shape: Sequence[int]) -> str:
        """A tensor in another shape."""
        size = self._constant(f"{output}.shape", np.array(shape, np.int64))
        return self.step("Reshape", [source, size], output)

    def linear(self, source: str, layers: Sequence[Layer], output: str) -> str:
        """All experts' layers of (experts, tokens, inputs), as (experts, tokens, outputs)."""
        if layers[0].rounding:
            source = self._rounded(source, layers, output)
        product = self.step("MatMul", [source, self._weights(layers, output)], f"{output}.product")
        return self.step("Add", [product, self._vectors([each.gemm.input[2] for each in layers], output)], output)

    def _rounded(self, source: str, layers: Sequence[Layer], output: str) -> str:
        """The tensor that the layers read, through eight bits with each expert's own scale."""
        quantizers = [layer.rounding[0].input for layer in layers]
        scale, zero = (
            self._constant(f"{output}.read.{name}", np.stack([self._array(each[position]) for each in quantizers]))
            for position, name in ((1, "scale"), (2, "zero"))
        )
        twin = self.step("QuantizeLinear", [source, scale, zero], f"{output}.read.q", axis=0)
        return self.step("DequantizeLinear", [twin, scale, zero], f"{output}.read", axis=0)

    def _weights(self, layers: Sequence[Layer], output: str) -> str:
        """Weights (experts, inputs, outputs), turned back from eight bits where these are stored."""
        weights = self._matrices([layer.weight for layer in layers], output)
        if not layers[0].rounding:
            return weights
        scales = self._vectors([layer.stored[1] for layer in layers], output, "scales")
        as_float = self.step("Cast", [weights], f"{output}.weights.float", to=TensorProto.FLOAT)
        return self.step("Mul", [as_float, scales], f"{output}.weights.back")

    def _matrices(self, parts: Sequence[str], output: str) -> str:
        """Stored matrices (outputs, inputs), one an expert, as (experts, inputs, outputs)."""
        rows = self._constants[parts[0]].dims[0]
        if self._stored_joined:
            return self._joined(parts, [self._count, rows, -1])
        together = self.step("Concat", parts, f"{output}.weights", axis=0)
        apart = self.shaped(together, f"{together}.apart", [self._count, rows, -1])
        return self.step("Transpose", [apart], f"{together}.turned", perm=[0, 2, 1])

    def _vectors(self, parts: Sequence[str], output: str, name: str = "biases") -> str:
        """Stored vectors (outputs), one an expert, as (experts, 1, outputs)."""
        rows = self._constants[parts[0]].dims[0]
        if self._stored_joined:
            return self._joined(parts, [self._count, rows, 1])
        together = self.step("Concat", parts, f"{output}.{name}", axis=0)
        return self.shaped(together, f"{together}.apart", [self._count, 1, rows])

    def _joined(self, parts: Sequence[str], shape: Sequence[int]) -> str:
        """One constant of several, of this shape but with its last two dimensions turned over; made once."""
        name = f"{parts[0]}.joined"
        if name not in self._constants:
            whole = np.concatenate([self._array(part) for part in parts]).reshape(shape)
            self._constant(name, np.ascontiguousarray(whole.swapaxes(1, 2)))
        return name

    def _array(self, name: str) -> NDArray[Any]:
        return numpy_helper.to_array(self._constants[name])

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        self._constants[name] = numpy_helper.from_array(value, name)
        self._graph.initializer.append(self._constants[name])
        return name
