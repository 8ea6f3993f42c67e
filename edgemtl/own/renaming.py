"""A net of one's own as exporters want it: input `image`, tensors and operators called after tasks and blocks."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

import onnx
from onnx import TensorProto, helper

from edgemtl.own.declaration import Resolved
from edgemtl.own.folding import newer_opset
from edgemtl.own.inputs import GREY
from edgemtl.own.net import OwnNet
from edgemtl.own.structure import Structure, find_structure
from edgemtl.targets import GRAPH_SCHEMA, TaskModel
from edgemtl.tasks import FLAG_PREFIX, IMAGE_INPUT, by_tensor

__all__ = ["task_model"]

_OLDEST_OPSET, _IR_VERSION = 11, 8


def task_model(net: OwnNet, resolved: Resolved) -> tuple[TaskModel, Structure]:
    """The net with an input `image`, float32 (1, 3, H, W), and one float32 tensor, batch of one, for each output.

    What layout, type or batch ask for are operators before and behind the net's own, which stay as they are. Raises
    `UnsupportedError` for a file of an operator set so old that it cannot be brought to a newer one.
    """
    outputs = {task.name: task.tensors for task in resolved.tasks}
    sources = by_tensor(resolved.tensors)
    flags = {f"{FLAG_PREFIX}{task}" for task in outputs}
    recent = newer_opset(net.model, net.name, _OLDEST_OPSET)
    recent.ir_version = max(recent.ir_version, _IR_VERSION)
    maker = _Maker(recent, {IMAGE_INPUT, *sources, *flags})
    maker.read_image(net)
    for name, source in sources.items():
        maker.give(source, name)
    model = maker.finish(list(sources))
    structure = find_structure(model, outputs)
    _name_operators(structure)
    model = _with_nodes(model, [node for block in structure.blocks for node in block.nodes])
    _name_tensors(model)
    structure = find_structure(model, outputs)
    owners = {block.name: structure.owner(block) for block in structure.blocks}
    _describe(model, outputs, owners)
    return TaskModel(model, outputs, net.size, owners), structure


class _Maker:
    """Renames tensors of a graph, and adds operators before and behind it; names that are reserved are free for it."""

    def __init__(self, model: onnx.ModelProto, reserved: Collection[str]) -> None:
        self.model, graph = model, model.graph
        self.infos = {info.name: info for info in (*graph.input, *graph.value_info, *graph.output)}
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.nodes = list(graph.node)
        self.first: list[onnx.NodeProto] = []
        self._names: dict[str, str] = {}
        for name in sorted(reserved):
            if name in self.infos or name in self.constants:
                self._rename(name, f"net.{name}")

    def _now(self, name: str) -> str:
        """The present name of what the net calls `name`."""
        return self._names.get(name, name)

    def _rename(self, name: str, new: str) -> None:
        """Give what the net calls `name` another name, which nothing has."""
        before = self._now(name)
        self._names[name] = new
        for node in self.nodes:
            node.input[:] = [new if each == before else each for each in node.input]
            node.output[:] = [new if each == before else each for each in node.output]
        for table in (self.infos, self.constants):
            if before in table:
                table[new] = table.pop(before)
                table[new].name = new

    def _kind(self, name: str) -> tuple[int, tuple[int, ...]]:
        kind = self.infos[name].type.tensor_type
        return kind.elem_type, tuple(side.dim_value for side in kind.shape.dim)

    def _declare(self, name: str, kind: int, sizes: tuple[int, ...]) -> None:
        self.infos[name] = helper.make_tensor_value_info(name, kind, sizes)

    def read_image(self, net: OwnNet) -> None:
        """Put `image` before the net's own input."""
        kind, sizes = self._kind(self._now(net.input))
        steps: list[tuple[str, tuple[int, ...]]] = [("Conv", (1, 1, *net.size))] if net.channels == 1 else []
        steps += [("Transpose", sizes)] if net.layout == "NHWC" else []
        steps += [("Cast", sizes)] if kind != TensorProto.FLOAT else []
        if not steps:
            self._rename(net.input, IMAGE_INPUT)
            return
        self._declare(IMAGE_INPUT, TensorProto.FLOAT, (1, 3, *net.size))
        before = IMAGE_INPUT
        for number, (operator, shape) in enumerate(steps, 1):
            after = self._now(net.input) if number == len(steps) else f"net.image.{number}"
            if operator == "Conv":
                self.constants["net.grey"] = helper.make_tensor("net.grey", TensorProto.FLOAT, [1, 3, 1, 1], GREY)
                self.first.append(helper.make_node("Conv", [before, "net.grey"], [after]))
            elif operator == "Transpose":
                self.first.append(helper.make_node("Transpose", [before], [after], perm=[0, 2, 3, 1]))
            else:
                self.first.append(helper.make_node("Cast", [before], [after], to=kind))
            if number < len(steps):
                self._declare(after, TensorProto.FLOAT, shape)
            before = after

    def give(self, source: str, name: str) -> None:
        """Make a tensor of the net the output `name`."""
        own = self._now(source)
        kind, sizes = self._kind(own)
        shape = sizes if sizes[:1] == (1,) else (1, *sizes)
        written = any(own in node.output for node in self.nodes)
        if written and kind == TensorProto.FLOAT and shape == sizes:
            self._rename(source, name)
            return
        if shape == sizes and kind == TensorProto.FLOAT:
            self.nodes.append(helper.make_node("Identity", [own], [name]))
        elif shape == sizes:
            self.nodes.append(helper.make_node("Cast", [own], [name], to=TensorProto.FLOAT))
        else:
            cast, target = f"net.{name}.float", f"net.{name}.shape"
            self.nodes.append(helper.make_node("Cast", [own], [cast], to=TensorProto.FLOAT))
            self._declare(cast, TensorProto.FLOAT, sizes)
            self.constants[target] = helper.make_tensor(target, TensorProto.INT64, [len(shape)], shape)
            self.nodes.append(helper.make_node("Reshape", [cast, target], [name]))
        self._declare(name, TensorProto.FLOAT, shape)

    def finish(self, outputs: list[str]) -> onnx.ModelProto:
        """The model with all new names, and nothing in it that no output needs."""
        needed, nodes = set(outputs), list[onnx.NodeProto]()
        for node in reversed([*self.first, *self.nodes]):
            if needed.intersection(node.output):
                needed.update(node.input)
                nodes.insert(0, node)
        constants = [tensor for name, tensor in self.constants.items() if name in needed]
        inner = [name for node in nodes for name in node.output if name in self.infos and name not in outputs]
        results = [self.infos[name] for name in outputs]
        graph = helper.make_graph(nodes, "net", [self.infos[IMAGE_INPUT]], results, constants)
        graph.value_info.extend(self.infos[name] for name in inner)
        domains = {node.domain.removeprefix("ai.onnx") for node in nodes} | {""}
        opsets = [each for each in self.model.opset_import if each.domain.removeprefix("ai.onnx") in domains]
        return helper.make_model(graph, opset_imports=opsets, ir_version=self.model.ir_version, producer_name="edgemtl")


def _name_operators(structure: Structure) -> None:
    """Call every operator after its block, so that profiles can be read block by block; names stay unique."""
    taken: set[str] = set()
    for block in structure.blocks:
        for number, node in enumerate(block.nodes):
            own = node.name.strip("/").replace("/", ".") or f"{node.op_type}_{number}"
            name = f"blocks.{block.name}.{own}"
            node.name = name if name not in taken else f"{name}_{number}"
            taken.add(node.name)


def _name_tensors(model: onnx.ModelProto) -> None:
    """Call every inner tensor after the operator that writes it: ONNX Runtime calls an operator whose layout it changes
    after its tensor."""
    graph = model.graph
    outputs = {info.name for info in graph.output}
    taken = outputs | {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer}
    names: dict[str, str] = {}
    for node in graph.node:
        for number, tensor in enumerate(node.output):
            if tensor and tensor not in outputs:
                new = f"{node.name}.{number}" if number else node.name
                names[tensor] = new if new not in taken else f"{new}.written"
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for info in graph.value_info:
        info.name = names.get(info.name, info.name)


def _with_nodes(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    return model


def _describe(
    model: onnx.ModelProto, outputs: Mapping[str, Mapping[str, str]], owners: Mapping[str, str | None]
) -> None:
    """Metadata by which a profile of the graph knows tasks and blocks."""
    tasks = {task: {"outputs": list(own.values())} for task, own in outputs.items()}
    metadata = {"schema": GRAPH_SCHEMA, "tasks": json.dumps(tasks), "blocks": json.dumps(dict(owners))}
    helper.set_model_props(model, metadata)
