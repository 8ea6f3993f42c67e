"""OpenVINO on CPUs: one intermediate representation, from which the runtime compiles the modes it needs.

INT8 is written as OpenVINO's own quantizer does: only what enters a convolution is rounded, since the placement that
ONNX Runtime wants costs two to four times here. What is left float runs in FP32 or, as a property of the engine, in
BF16.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemtl.devices import Device
from edgemtl.errors import MissingDependencyError, UnsupportedError
from edgemtl.files.disk import write_atomic
from edgemtl.graphs import Group
from edgemtl.models.quantization import QuantScheme, Ranges
from edgemtl.runtime import EngineSpec
from edgemtl.targets.common import check_build, exact_on, make_spec, write_spec
from edgemtl.targets.onnx.common_path import common_path
from edgemtl.targets.onnx.dispatch import DispatchPolicy
from edgemtl.targets.onnx.emit import emit_graph
from edgemtl.targets.onnx.partition import groups_of
from edgemtl.targets.onnx.projections import join_projections
from edgemtl.targets.onnx.quantize import quantize
from edgemtl.targets.onnx.shuffle import transpose_shuffles
from edgemtl.targets.onnx.stack import stack_experts
from edgemtl.targets.onnx.task_model import TaskModel
from edgemtl.traits import TargetTraits

if TYPE_CHECKING:
    import onnx
    import openvino

    from edgemtl.models import TaskNet
    from edgemtl.models.graph import Graph

__all__ = ["OpenVinoTarget"]

_FEWEST_TOKENS = 9
_FILES = {"model": "model.xml", "weights": "model.bin"}
_HINTS = {"fp32": "f32", "bf16": "bf16"}
_TRAITS = TargetTraits(
    name="openvino",
    title="OpenVINO (CPU)",
    block_precisions=("float", "int8"),
    engine_precisions=("fp32", "bf16"),
    channel_multiple=8,
    runtime="openvino",
    extra="openvino",
    weight_precisions=("int4",),
)


@dataclass(frozen=True)
class OpenVinoTarget:
    """Writes `model.xml` and `model.bin` (weights once), and how they part: trunk, heads, what tasks have in common."""

    device: Device

    @property
    def traits(self) -> TargetTraits:
        """Capabilities of OpenVINO on the device: BF16 only where its processor has it."""
        return _TRAITS.on(self.device)

    @property
    def scheme(self) -> QuantScheme:
        """Weights of as many bits as the device's processor multiplies exactly."""
        return exact_on(self.device.arithmetic_of(_TRAITS.runtime), QuantScheme("uint8", rounding="scaled"))

    @property
    def dispatch(self) -> DispatchPolicy:
        """Queues of any length, or a fixed capacity where the net bounds an expert's tokens."""
        return DispatchPolicy("segments", bounded="buckets", scatters=True)

    def build(self, net: TaskNet, precision: Mapping[str, str], ranges: Ranges | None, folder: Path) -> list[Path]:
        """Write the engine; see `edgemtl.targets.ExportTarget`."""
        graph, ranges = check_build(net, precision, ranges, self.traits)
        made = TaskModel(self._model(graph, precision, ranges), graph.outputs, graph.input_size, graph.block_tasks)
        return self.build_model(made, precision, folder)

    def build_model(self, model: TaskModel, precision: Mapping[str, str], folder: Path) -> list[Path]:
        """Write the engine; see `edgemtl.targets.ModelTarget`."""
        _write(model.model, folder)
        groups = groups_of(model.model.graph, model.outputs)
        path = common_path(groups, {tensor.name: tensor for tensor in model.model.graph.initializer})
        parts = {"parts": _parts(model.model, groups), "path": None if path is None else asdict(path)}
        return write_spec(folder, self, model, _FILES, precision, **self._options(precision), **parts)

    def build_plain(
        self,
        net: TaskNet,
        precision: Mapping[str, str],
        ranges: Ranges | None,
        folder: Path,
        finish: Callable[[onnx.ModelProto], onnx.ModelProto],
    ) -> EngineSpec:
        """Write `model.xml` and `model.bin`; see `edgemtl.targets.PlainTarget`."""
        graph, ranges = check_build(net, precision, ranges, self.traits)
        _write(finish(self._model(graph, precision, ranges)), folder)
        return make_spec(self, graph, _FILES, precision, **self._options(precision))

    def _model(self, graph: Graph, precision: Mapping[str, str], ranges: Ranges) -> onnx.ModelProto:
        """The ONNX model that OpenVINO reads best."""
        _check_tokens(graph)
        model = emit_graph(graph, self.dispatch)
        join_projections(model)
        model = quantize(model, precision, ranges, self.scheme)
        transpose_shuffles(model)
        stack_experts(model)
        return model

    def _options(self, precision: Mapping[str, str]) -> dict[str, Any]:
        """Precision of the blocks left in float, which the files do not record."""
        engine = precision.get("engine", self.traits.engine_precisions[0])
        options = {"INFERENCE_PRECISION_HINT": _HINTS[engine]}
        if "int4" in precision.values():  # what enters such a layer would be rounded to eight bits where VNNI is
            options["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = "0"
        return {"engine": engine, "runtime_options": options}


def _check_tokens(graph: Graph) -> None:
    """Refuse what ends the process: OpenVINO 2026.4 crashes when it compiles attention over 4, 6 or 8 tokens."""
    for node in graph.nodes:
        if node.op == "ToTokens" and int(node.attributes["tokens"]) < _FEWEST_TOKENS:
            raise UnsupportedError(
                f"target openvino cannot compile attention over {node.attributes['tokens']} tokens: give images of "
                f"{_FEWEST_TOKENS} patches of 16x16 or more, 64x64 for one (--size)"
            )


def _write(model: onnx.ModelProto, folder: Path) -> None:
    for name, content in _representation(model).items():
        write_atomic(folder / name, content)


def _representation(model: onnx.ModelProto) -> dict[str, bytes]:
    """OpenVINO's own files for an ONNX model, by name."""
    try:
        import openvino
    except ImportError as error:
        raise MissingDependencyError("openvino", "openvino", "building for the target openvino") from error
    try:
        read = openvino.Core().read_model(model.SerializeToString())
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UnsupportedError(f"target openvino {openvino.__version__} cannot read the model: {reason}") from error
    _name_alike(read)
    _keep_order(read)
    with tempfile.TemporaryDirectory() as scratch:
        openvino.save_model(read, Path(scratch) / _FILES["model"], compress_to_fp16=False)
        return {name: (Path(scratch) / name).read_bytes() for name in _FILES.values()}


def _name_alike(model: openvino.Model) -> None:
    """Number the operators that OpenVINO adds within this model: it numbers them by process, and files differ."""
    for number, operator in enumerate(model.get_ordered_ops()):
        if re.fullmatch(r"[A-Z][A-Za-z]*_\d+", operator.get_friendly_name()):
            operator.set_friendly_name(f"{operator.get_type_name()}_{number}")


def _keep_order(model: openvino.Model) -> None:
    """Of equal values the earlier one comes first, as ONNX has it; OpenVINO's reader leaves that open.

    Which tokens an expert has no place for hangs on it.
    """
    for operator in model.get_ordered_ops():
        if operator.get_type_name() == "TopK":
            operator.set_attribute("stable", True)


def _parts(model: onnx.ModelProto, groups: Sequence[Group]) -> list[dict[str, list[str]]]:
    """The groups of operators that tasks share or own: who needs them, what they read and give to others."""
    constants = {tensor.name for tensor in model.graph.initializer}
    parts = []
    for group in groups:
        made = {name for node in group.nodes for name in node.output}
        read = dict.fromkeys(name for node in group.nodes for name in node.input if name)
        inputs = [name for name in read if name not in made and name not in constants]
        parts.append({"tasks": sorted(group.tasks), "inputs": inputs, "outputs": list(group.outputs)})
    return parts
