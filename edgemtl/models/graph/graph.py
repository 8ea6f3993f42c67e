"""A static net as a list of operators: what simulation, calibration and every exporter read.

`trace` runs torch.fx over a net, folds every batch normalisation into its convolution, and names each operator after
the module it comes from, so that a name is the same in a net and in its subsets. Operators carry ONNX's names and
attributes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgemtl.errors import UnsupportedError
from edgemtl.models.graph.lowering import FUNCTIONS, METHODS, MODULES, Lowered
from edgemtl.tasks import by_tensor, map_outputs

__all__ = ["Graph", "Node", "Program", "outside", "trace", "trace_program"]

outside = "net"
"""Block name of operators that stand in no block of the net."""


@dataclass(frozen=True)
class Node:
    """One operator: ONNX's type `op`, the tensors it reads, the tensor it writes (called like the node), its constants.

    `block` is the block of the net it belongs to and `task` that block's task (none: trunk). `constants` are named
    tensors in ONNX's input order after `inputs` (weight, bias).
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    output: str
    block: str
    task: str | None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Graph:
    """Operators in execution order, the input `image` (1, 3, H, W) and the tensor that each output of a task is."""

    nodes: tuple[Node, ...]
    input: str
    input_size: tuple[int, int]
    outputs: Mapping[str, Mapping[str, str]]
    block_tasks: Mapping[str, str | None]

    @property
    def output_tensors(self) -> tuple[str, ...]:
        """The tensors of all outputs."""
        return tuple(by_tensor(self.outputs))

    def readers(self) -> dict[str, list[Node]]:
        """For each tensor the nodes that read it, in execution order."""
        readers: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in node.inputs:
                readers.setdefault(name, []).append(node)
        return readers

    def writers(self) -> dict[str, Node]:
        """For each tensor the node that writes it."""
        return {node.output: node for node in self.nodes}


@dataclass(frozen=True)
class Program:
    """A graph together with the calls of torch.fx that it was made of.

    `operators` names the operator that a call became, `tensors` the tensor that its value is. `folded` are the
    normalisations that went into the convolution before them: no operators, and their value is the convolution's.
    """

    graph: Graph
    calls: fx.Graph
    operators: Mapping[fx.Node, str]
    tensors: Mapping[fx.Node, str]
    folded: frozenset[fx.Node]


def trace(net: nn.Module) -> Graph:
    """The operators of a static net in evaluation mode, batch normalisation folded.

    `net` is a `MultiTaskNet`: it has `blocks`, `block_tasks` and `input_size` and maps an image to a dictionary of the
    outputs of each task. Raises `UnsupportedError` naming the module or function that has no ONNX counterpart here.
    """
    return trace_program(net).graph


def trace_program(net: nn.Module) -> Program:
    """Like `trace`, with the calls that the operators stand for: to run the net itself, operator by operator."""
    traced = _Tracer().trace(net)
    builder = _Builder(net)
    for node in traced.nodes:
        builder.add(node)
    return builder.finish(traced)


class _Tracer(fx.Tracer):
    """Stops at every module that is one operator, torch's or ours."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) in MODULES or super().is_leaf_module(m, module_qualified_name)


class _Builder:
    """Turns fx nodes into operators one by one; `values` maps each fx node to the name of the tensor it became.

    `operators` are the names of those that became an operator of their own, `folded` the normalisations that did not.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.modules = dict(net.named_modules())
        self.block_tasks: dict[str, str | None] = dict(net.block_tasks)  # type: ignore[arg-type]
        self.values: dict[fx.Node, str] = {}
        self.operators: dict[fx.Node, str] = {}
        self.folded: set[fx.Node] = set()
        self.nodes: dict[str, Node] = {}
        self.outputs: dict[str, dict[str, str]] = {}
        self.input = ""

    def add(self, node: fx.Node) -> None:
        if node.op == "placeholder":
            self.input = self.values[node] = "image"
        elif node.op == "output":
            self.outputs = map_outputs(self.values.__getitem__, _output_values(node))
        elif node.op == "call_module":
            self._call_module(node)
        elif node.op in ("call_function", "call_method"):
            table: Mapping[Any, Callable[..., Lowered | None]] = FUNCTIONS if node.op == "call_function" else METHODS
            label = getattr(node.target, "__name__", str(node.target))
            lower = table.get(node.target)
            if lower is None:
                raise _unsupported(f"function {label}", _scope(node) or outside)
            self._append(node, f"{_scope(node) or outside}.{label.strip('_')}", lower(node.args, node.kwargs))
        else:
            raise _unsupported(f"parameter {node.target} used outside a layer", _scope(node) or outside)

    def _call_module(self, node: fx.Node) -> None:
        path = str(node.target)
        module = self.modules[path]
        source = node.args[0]
        assert isinstance(source, fx.Node)
        if isinstance(module, nn.BatchNorm2d) and self._fold(node, source, module):
            return
        lower = MODULES.get(type(module))
        if lower is None:
            raise _unsupported(f"module {type(module).__name__}", path)
        self._append(node, path, lower(module, node.args))

    def _append(self, node: fx.Node, name: str, lowered: Lowered | None) -> None:
        if lowered is None:
            raise _unsupported(f"{name.rpartition('.')[2]} with these arguments", name)
        sources = [value for value in lowered.inputs if isinstance(value, fx.Node)]
        if len(sources) != len(lowered.inputs):
            raise _unsupported(f"{lowered.op} of a tensor and a number", name)
        if lowered.op == "Identity":
            self.values[node] = self.values[sources[0]]
            return
        name = self._unique(name)
        block = self._block(name)
        self.values[node] = self.operators[node] = name
        inputs = tuple(self.values[source] for source in sources)
        task = self.block_tasks.get(block)
        self.nodes[name] = Node(name, lowered.op, inputs, name, block, task, lowered.attributes, lowered.constants)

    def _fold(self, node: fx.Node, source: fx.Node, norm: nn.BatchNorm2d) -> bool:
        """Put a batch normalisation into the convolution before it, where nothing else reads that convolution."""
        before = self.nodes.get(self.values[source])
        if before is None or before.op != "Conv" or len(source.users) != 1 or norm.running_mean is None:
            return False
        constants = _folded(before.constants, norm)
        self.nodes[before.name] = Node(
            before.name, "Conv", before.inputs, before.output, before.block, before.task, before.attributes, constants
        )
        self.values[node] = before.output
        self.folded.add(node)
        return True

    def _block(self, name: str) -> str:
        parts = name.split(".")
        return parts[1] if parts[0] == "blocks" and len(parts) > 1 and parts[1] in self.block_tasks else outside

    def _unique(self, name: str) -> str:
        unique, count = name, 0
        while unique in self.nodes:
            count += 1
            unique = f"{name}_{count}"
        return unique

    def finish(self, calls: fx.Graph) -> Program:
        """The graph of `calls`, each output's tensor called as `edgemtl.tasks.by_tensor` says."""
        nodes, renamed = list(self.nodes.values()), dict[str, str]()
        outputs: dict[str, dict[str, str]] = {task: {} for task in self.outputs}
        origins = {task: {name: (task, name) for name in own} for task, own in self.outputs.items()}
        for made, (task, name) in by_tensor(origins).items():
            tensor = self.outputs[task][name]
            if tensor in renamed or tensor == self.input:
                writer = self.nodes.get(tensor)
                block = writer.block if writer else outside
                nodes.append(Node(f"{outside}.{made}", "Identity", (tensor,), made, block, task))
            else:
                renamed[tensor] = made
            outputs[task][name] = made
        size: tuple[int, int] = self.net.input_size  # type: ignore[assignment]
        used = _reachable(tuple(_rename(node, renamed) for node in nodes), set(by_tensor(outputs)))
        graph = Graph(used, self.input, (int(size[0]), int(size[1])), outputs, self.block_tasks)
        tensors = {node: renamed.get(name, name) for node, name in self.values.items()}
        return Program(graph, calls, self.operators, tensors, frozenset(self.folded))


def _reachable(nodes: tuple[Node, ...], wanted: set[str]) -> tuple[Node, ...]:
    """Without the operators that no output needs (a subset's trunk may end early)."""
    reachable = []
    for node in reversed(nodes):
        if node.output in wanted:
            wanted.update(node.inputs)
            reachable.append(node)
    return tuple(reversed(reachable))


def _rename(node: Node, names: Mapping[str, str]) -> Node:
    inputs = tuple(names.get(name, name) for name in node.inputs)
    output = names.get(node.output, node.output)
    return Node(node.name, node.op, inputs, output, node.block, node.task, node.attributes, node.constants)


def _folded(constants: Mapping[str, Tensor], norm: nn.BatchNorm2d) -> dict[str, Tensor]:
    """Weight and bias of convolution and normalisation in one; in float64, so that only the last step rounds."""
    weight = constants["weight"].detach().double()
    assert norm.running_mean is not None and norm.running_var is not None
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale = torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    bias = constants["bias"].detach().double() if "bias" in constants else torch.zeros_like(mean)
    shift = norm.bias.detach().double() if norm.bias is not None else torch.zeros_like(mean)
    return {"weight": (weight * scale.view(-1, 1, 1, 1)).float(), "bias": ((bias - mean) * scale + shift).float()}


def _output_values(node: fx.Node) -> Mapping[str, Mapping[str, fx.Node]]:
    outputs: Any = node.args[0]
    tasks = list(outputs.values()) if isinstance(outputs, Mapping) else [None]
    if not all(isinstance(own, Mapping) and all(isinstance(t, fx.Node) for t in own.values()) for own in tasks):
        raise UnsupportedError(
            "the net returns no dictionary of the outputs of each task: only a MultiTaskNet can be traced"
        )
    return {str(task): {str(name): tensor for name, tensor in own.items()} for task, own in outputs.items()}


def _scope(node: fx.Node) -> str:
    """Path of the innermost module whose forward called this function."""
    stack: Sequence[Any] = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack else ""


def _unsupported(what: str, path: str) -> UnsupportedError:
    return UnsupportedError(
        f"{what} at {path} has no operator here; export supports: {', '.join(sorted(_supported()))}"
    )


def _supported() -> set[str]:
    return {module.__name__ for module in MODULES} | {getattr(function, "__name__", "") for function in FUNCTIONS}
