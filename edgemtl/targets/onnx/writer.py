"""The ONNX nodes and initializers of a graph, collected operator by operator."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgemtl.models.graph import Node
from edgemtl.targets.onnx.dispatch import DispatchPolicy, Routed

__all__ = ["Writer"]


class Writer:
    """Collects ONNX nodes and initializers; a tensor that two operators share is stored once.

    `even_tokens` says of tensors whose length depends on the image how long they are where experts share evenly; their
    sum never changes, so FLOPs that are counted with it are exact; where the net bounds its experts they are the most.
    """

    def __init__(self, dispatch: DispatchPolicy, takers: Mapping[str, list[str]]) -> None:
        self.dispatch, self.takers, self.tokens = dispatch, takers, 0
        self._taken = {name for names in takers.values() for name in names}
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: dict[str, TensorProto] = {}
        self.routed: dict[str, Routed] = {}
        self.sorted: set[str] = set()
        self.totals: set[str] = set()
        self.even_tokens: dict[str, int] = {}
        self._stored: dict[tuple[int, tuple[int, ...]], str] = {}
        self._aliases: dict[str, str] = {}

    def resolved(self, node: Node) -> Node:
        """An operator that reads tensors by the names that they have now."""
        return replace(node, inputs=tuple(self._aliases.get(name, name) for name in node.inputs))

    def alias(self, name: str, other: str) -> None:
        """From here on, `name` is the tensor `other`."""
        self._aliases[name] = other

    def constant(self, name: str, value: NDArray[np.generic]) -> str:
        """An initializer, once; its name."""
        if name not in self.initializers:
            self.initializers[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def array(self, node: Node, name: str, value: NDArray[np.generic]) -> str:
        """An initializer of one operator."""
        return self.constant(f"{node.name}.{name}", value)

    def integers(self, node: Node, name: str, value: int | Iterable[int]) -> str:
        """Integers (one, or a list) that one operator reads."""
        return self.array(node, name, np.array(value if isinstance(value, int) else [*value], np.int64))

    def number(self, name: str, value: float) -> str:
        """A number that many operators read."""
        return self.constant(name, np.array(value, np.float32))

    def step(self, node: Node, op: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        """One ONNX node of an operator that takes several; `output` is a full name or a part of the operator's."""
        return self.steps(node, op, inputs, [output], **attributes)[0]

    def steps(self, node: Node, op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> list[str]:
        """Like `step`, with several outputs. The ONNX nodes say which operator they are parts of: they stay float."""
        shared = tuple(f"{gates}." for gates in self.routed)
        full = {name for name in outputs if name == node.output or name in self._taken or name.startswith(shared)}
        names = [name if name in full else f"{node.name}.{name}" for name in outputs]
        self.nodes.append(helper.make_node(op, list(inputs), names, name=names[0], doc_string=node.op, **attributes))
        return names

    def add(self, node: Node, extra: list[str] | None = None, **attributes: Any) -> None:
        """The ONNX node that an operator is."""
        inputs = [*node.inputs, *(extra or [])]
        self.nodes.append(helper.make_node(node.op, inputs, [node.output], name=node.name, **attributes))

    def weights(self, node: Node) -> list[str]:
        """An operator's constants, as initializers."""
        names = []
        for key, tensor in node.constants.items():
            name = self._stored.setdefault((tensor.data_ptr(), tuple(tensor.shape)), f"{node.name}.{key}")
            names.append(self.constant(name, tensor.numpy()))
        return names
