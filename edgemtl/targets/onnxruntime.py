"""ONNX Runtime on CPUs: one file, one session, unwanted tasks inside `If`.

INT8 follows what ONNX Runtime fuses: convolutions that write eight bits, int32 biases, sums of eight-bit tensors.
Activations are unsigned on x86, whose signed kernels take about twice the time, and signed on Arm, whose kernels want
them so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from onnx import helper, numpy_helper

from edgemtl.devices import Device
from edgemtl.files.disk import write_atomic
from edgemtl.models.quantization import WEIGHTED, QuantScheme, Ranges
from edgemtl.runtime import DISABLED_OPTIMIZERS, EngineSpec
from edgemtl.targets.common import check_build, exact_on, flags_of, make_spec, write_spec
from edgemtl.targets.onnx.dispatch import DispatchPolicy
from edgemtl.targets.onnx.emit import emit_graph
from edgemtl.targets.onnx.interpolation import interpolate_by_products
from edgemtl.targets.onnx.partition import with_conditions
from edgemtl.targets.onnx.quantize import quantize
from edgemtl.targets.onnx.task_model import TaskModel
from edgemtl.traits import Storage, TargetTraits

if TYPE_CHECKING:
    import onnx

    from edgemtl.models import TaskNet

__all__ = ["OnnxRuntimeTarget"]

_MODEL = "model.onnx"
_RUNTIME_OPTIONS = {"optimization.disable_specified_optimizers": ";".join(DISABLED_OPTIMIZERS)}
_TRAITS = TargetTraits(
    name="onnxruntime",
    title="ONNX Runtime (CPU)",
    block_precisions=("float", "int8"),
    engine_precisions=("fp32",),
    channel_multiple=8,
    runtime="onnxruntime",
    extra="all",
    weight_precisions=("int4",),
)


@dataclass(frozen=True)
class OnnxRuntimeTarget:
    """Writes `model.onnx`: one graph whose task-exclusive operators stand inside `If`, weights stored once."""

    device: Device

    @property
    def traits(self) -> TargetTraits:
        """Capabilities of ONNX Runtime on the device."""
        return replace(_TRAITS.on(self.device), storage=Storage(channel_bytes=self.scheme.channel_bytes))

    @property
    def scheme(self) -> QuantScheme:
        """The signs and bits that the device's processor multiplies exactly and fast."""
        arithmetic = self.device.arithmetic_of(_TRAITS.runtime)
        activation: Literal["uint8", "int8"] = "int8" if arithmetic in ("arm", "arm-dot") else "uint8"
        passthrough_ops = ("DepthToSpace", "MaxPool", "Resize")
        scheme = QuantScheme(
            activation, quantize_outputs=True, quantized_ops=("Add",), passthrough_ops=passthrough_ops, bias="int32"
        )
        return exact_on(arithmetic, scheme)

    @property
    def dispatch(self) -> DispatchPolicy:
        """An expert's queue is as long as its tokens are many."""
        return DispatchPolicy("segments", scatters=True)

    def build(self, net: TaskNet, precision: Mapping[str, str], ranges: Ranges | None, folder: Path) -> list[Path]:
        """Write the engine; see `edgemtl.targets.ExportTarget`."""
        graph, ranges = check_build(net, precision, ranges, self.traits)
        model = quantize(emit_graph(graph, self.dispatch), precision, ranges, self.scheme)
        made = TaskModel(model, graph.outputs, graph.input_size, graph.block_tasks)
        return self.build_model(made, precision, folder)

    def build_model(self, model: TaskModel, precision: Mapping[str, str], folder: Path) -> list[Path]:
        """Write the engine; see `edgemtl.targets.ModelTarget`."""
        content = with_conditions(interpolate_by_products(model.model), model.outputs).SerializeToString(
            deterministic=True
        )
        write_atomic(folder / _MODEL, content)
        options = {"flags": flags_of(model), "runtime_options": _RUNTIME_OPTIONS}
        return write_spec(folder, self, model, {"model": _MODEL}, precision, **options)

    def build_plain(
        self,
        net: TaskNet,
        precision: Mapping[str, str],
        ranges: Ranges | None,
        folder: Path,
        finish: Callable[[onnx.ModelProto], onnx.ModelProto],
    ) -> EngineSpec:
        """Write `model.onnx` without conditions; see `edgemtl.targets.PlainTarget`."""
        graph, ranges = check_build(net, precision, ranges, self.traits)
        model = finish(quantize(emit_graph(graph, self.dispatch), precision, ranges, self.scheme))
        _keep_float(model)
        write_atomic(folder / _MODEL, model.SerializeToString(deterministic=True))
        return make_spec(self, graph, {"model": _MODEL}, precision)


def _keep_float(model: onnx.ModelProto) -> None:
    """Give what enters a float convolution its one scale once a channel, in place: no value changes.

    ONNX Runtime's optimizer `WeightBiasQuantization` rounds the weights of a float convolution between two INT8 ones to
    eight bits unasked, but only where that scale is a scalar. Edgemtl's session turns the optimizer off; who opens a
    plain file with the defaults gets the same outputs by this.
    """
    graph = model.graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    shapes = {info.name: info.type.tensor_type.shape.dim for info in graph.value_info}
    writers = {node.output[0]: node for node in graph.node}
    for node in graph.node:
        entering = writers.get(node.input[0]) if node.input else None
        if node.op_type not in WEIGHTED or node.input[1] not in constants or entering is None:
            continue
        if entering.op_type == "DequantizeLinear" and constants[entering.input[1]].ndim == 0:
            channels = shapes[entering.output[0]][1].dim_value
            for position in (1, 2):
                name = f"{entering.output[0]}.{entering.input[position]}"
                repeated = np.repeat(constants[entering.input[position]], channels)
                graph.initializer.append(numpy_helper.from_array(repeated, name))
                entering.input[position] = name
            entering.attribute.append(helper.make_attribute("axis", 1))
