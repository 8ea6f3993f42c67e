"""An ONNX model in which unwanted tasks cost nothing.

Operators are grouped by the exact set of tasks that need them. What every task needs runs always; every other group
stands inside an `If` on the boolean inputs `want_TASK`, with its own initializers, so that a runtime optimises it
like a graph of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx
from onnx import TensorProto, helper

from edgemtl.graphs import Group, Tasks, group_by_tasks, reads_and_writes, renamed_node, tasks_of_tensors
from edgemtl.runtime import flag_name

__all__ = ["groups_of", "with_conditions"]

_SMALL_BYTES = 256
Outputs = Mapping[str, Mapping[str, str]]
"""The tensor of each output of each task."""


def groups_of(graph: onnx.GraphProto, outputs: Outputs) -> list[Group]:
    """Groups of operators, those that most tasks need first."""
    return group_by_tasks(graph, _tensors_of(outputs))


def _tasks_of_tensors(graph: onnx.GraphProto, outputs: Outputs) -> dict[str, Tasks]:
    return tasks_of_tensors(reads_and_writes(graph), _tensors_of(outputs))


def _tensors_of(outputs: Outputs) -> dict[str, set[str]]:
    return {task: set(own.values()) for task, own in outputs.items()}


def with_conditions(model: onnx.ModelProto, outputs: Outputs, static: bool = False) -> onnx.ModelProto:
    """The model with every group that not all tasks need inside an `If`; unchanged where there is one task.

    A skipped branch gives tensors without elements. Where `static`, for runtimes that plan everything ahead, it gives
    zeros of the real shape instead, and no eight-bit tensor goes into an `If` or out of it: each reader rounds the
    float one for itself, and each branch has its own copy of rounded weights.
    """
    if len(outputs) < 2:
        return model
    model = _restore_weights_in_each_group(model, outputs)
    return _Rewriter(_round_in_each_group(model, outputs) if static else model, outputs, static).rewrite()


def _restore_weights_in_each_group(model: onnx.ModelProto, outputs: Outputs) -> onnx.ModelProto:
    """The model with a `DequantizeLinear` of its own for every group that reads a rounded weight.

    A runtime computes in eight bits only where it finds it beside the reader; the weight itself stays one.
    """
    needed = _tasks_of_tensors(model.graph, outputs)
    constants = {tensor.name for tensor in model.graph.initializer}
    restored = {
        node.output[0]: node
        for node in model.graph.node
        if node.op_type == "DequantizeLinear" and constants.issuperset(node.input)
    }
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    twins: dict[tuple[str, frozenset[str]], str] = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.output[0] in restored:
            continue
        wanted_by = frozenset[str]().union(*(needed.get(name, frozenset()) for name in node.output))
        names = {}
        for name in node.input:
            if name in restored:
                if (name, wanted_by) not in twins:
                    alone = needed[name] == wanted_by
                    twins[name, wanted_by] = name if alone else f"{name}.{'.'.join(sorted(wanted_by))}"
                    result.graph.node.append(_twin(restored[name], twins[name, wanted_by]))
                names[name] = twins[name, wanted_by]
        result.graph.node.append(renamed_node(node, names))
    return result


def _round_in_each_group(model: onnx.ModelProto, outputs: Outputs) -> onnx.ModelProto:
    """The model with a `QuantizeLinear` of its own for every group that reads a rounded tensor."""
    needed = _tasks_of_tensors(model.graph, outputs)
    copies: dict[str, dict[frozenset[str], str]] = {}
    rounded = {node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in rounded:
            keys = copies.setdefault(node.input[0], {})
            keys.setdefault(needed.get(node.output[0], frozenset()), f"{node.input[0]}.{len(keys)}")
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear" and len(copies.get(node.output[0], {})) > 1:
            result.graph.node.extend(_twin(node, name) for name in copies[node.output[0]].values())
        elif node.op_type == "DequantizeLinear" and len(copies.get(node.input[0], {})) > 1:
            twin = copies[node.input[0]][needed.get(node.output[0], frozenset())]
            result.graph.node.append(renamed_node(node, {node.input[0]: twin}))
        else:
            result.graph.node.append(node)
    return result


def _twin(node: onnx.NodeProto, name: str) -> onnx.NodeProto:
    copy = renamed_node(node, {node.output[0]: name})
    copy.name = node.name if name == node.output[0] else name
    return copy


class _Rewriter:
    def __init__(self, model: onnx.ModelProto, outputs: Outputs, static: bool) -> None:
        self.model, self.tasks, self.static = model, tuple(outputs), static
        self.types = {info.name: info for info in (*model.graph.value_info, *model.graph.output)}
        self.constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self.groups = groups_of(model.graph, outputs)
        self.owners = self._owners()
        self.nodes: list[onnx.NodeProto] = []
        self.outer: dict[str, TensorProto] = {}

    def _owners(self) -> dict[str, set[frozenset[str]]]:
        owners: dict[str, set[frozenset[str]]] = {}
        for group in self.groups:
            for node in group.nodes:
                for name in node.input:
                    if name in self.constants:
                        owners.setdefault(name, set()).add(group.tasks)
        return owners

    def rewrite(self) -> onnx.ModelProto:
        everyone = frozenset(self.tasks)
        for group in self.groups:
            if group.tasks == everyone:
                self.nodes.extend(group.nodes)
                self._keep_outside(name for node in group.nodes for name in node.input)
            else:
                self._add_branch(group)
        wants = [helper.make_tensor_value_info(flag_name(task), TensorProto.BOOL, [1]) for task in self.tasks]
        return self._assemble(wants)

    def _keep_outside(self, names: Iterable[str]) -> None:
        self.outer.update({name: self.constants[name] for name in names if name in self.constants})

    def _assemble(self, wants: list[onnx.ValueInfoProto]) -> onnx.ModelProto:
        made = {name for node in self.nodes for name in node.output}
        names = [output.name for output in self.model.graph.output]
        outputs = [
            self.types[name] if self.static else helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            for name in names
        ]
        graph = helper.make_graph(
            self.nodes, self.model.graph.name, [*self.model.graph.input, *wants], outputs, list(self.outer.values())
        )
        graph.value_info.extend(
            info for name, info in self.types.items() if name in made and name not in self._conditional()
        )
        result = onnx.ModelProto()
        result.CopyFrom(self.model)
        result.graph.CopyFrom(graph)
        return result

    def _conditional(self) -> set[str]:
        return {name for group in self.groups if len(group.tasks) < len(self.tasks) for name in group.outputs}

    def _condition(self, tasks: frozenset[str]) -> str:
        wants = [flag_name(task) for task in sorted(tasks)]
        result = wants[0]
        for want in wants[1:]:
            made = f"{result}.{want}"
            if not any(made in node.output for node in self.nodes):
                self.nodes.append(helper.make_node("Or", [result, want], [made], name=f"modes.{made}"))
            result = made
        return result

    def _add_branch(self, group: Group) -> None:
        condition = self._condition(group.tasks)
        inner = {name: f"{name}.inside" for name in group.outputs}
        nodes = [renamed_node(node, inner) for node in group.nodes]
        own: dict[str, TensorProto] = {}
        copies: dict[str, str] = {}
        for name in dict.fromkeys(name for node in group.nodes for name in node.input if name in self.constants):
            if len(self.owners[name]) == 1:
                own[name] = self.constants[name]
            elif self._is_copied(self.constants[name]):
                copies[name] = f"{name}.{'.'.join(sorted(group.tasks))}"
                own[name] = TensorProto()
                own[name].CopyFrom(self.constants[name])
                own[name].name = copies[name]
            else:
                self._keep_outside([name])
        nodes = [renamed_node(node, copies) for node in nodes]
        label = ".".join(sorted(group.tasks))
        infos = [
            self.types[name] for node in group.nodes for name in node.output if name in self.types and name not in inner
        ]
        then = helper.make_graph(
            nodes, f"run.{label}", [], [self._typed(name, inner[name]) for name in group.outputs], list(own.values())
        )
        then.value_info.extend(infos)
        skipped = self._skipped(group, label)
        self.nodes.append(
            helper.make_node(
                "If", [condition], list(group.outputs), name=f"modes.{label}", then_branch=then, else_branch=skipped
            )
        )

    def _is_copied(self, tensor: TensorProto) -> bool:
        """Whether every branch that reads a constant has it for itself."""
        return tensor.ByteSize() <= _SMALL_BYTES or (self.static and tensor.data_type == TensorProto.INT8)

    def _typed(self, name: str, label: str) -> onnx.ValueInfoProto:
        info = onnx.ValueInfoProto()
        info.CopyFrom(self.types[name])
        info.name = label
        return info

    def _skipped(self, group: Group, label: str) -> onnx.GraphProto:
        """The branch of an unwanted task: tensors without elements, or zeros, of the real rank and channels."""
        nodes, infos, constants = [], [], []
        for name in group.outputs:
            kind = self.types[name].type.tensor_type
            shape = [size.dim_value for size in kind.shape.dim]
            made = f"{name}.skipped"
            zero = helper.make_tensor(f"{made}.zero", kind.elem_type, [1], [0])
            if not self.static:
                shape = [size if axis < 2 and len(shape) > 2 else 0 for axis, size in enumerate(shape)]
            constants.append(helper.make_tensor(f"{made}.shape", TensorProto.INT64, [len(shape)], shape))
            node = helper.make_node(
                "ConstantOfShape", [f"{made}.shape"], [made], name=f"modes.{label}.{made}", value=zero
            )
            nodes.append(node)
            infos.append(helper.make_tensor_value_info(made, kind.elem_type, shape))
        return helper.make_graph(nodes, f"skip.{label}", [], infos, constants)
