"""ONNX Runtime on CPUs: one file, one session, unwanted tasks inside `If`.

INT8 follows what ONNX Runtime fuses: unsigned activations (its signed kernels take about twice the time on x86),
convolutions that write eight bits, int32 biases, sums of eight-bit tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgemtl._files import write_atomic
from edgemtl.export._emit import emit_graph
from edgemtl.export._partition import with_conditions
from edgemtl.export._quantize import quantize
from edgemtl.export._tokens import Dispatch
from edgemtl.export.targets._common import check_build, write_spec
from edgemtl.models.quantization import QuantScheme, Ranges
from edgemtl.targets import TargetTraits

if TYPE_CHECKING:
    from edgemtl.models import MultiTaskNet

__all__ = ["ONNXRUNTIME"]

_MODEL = "model.onnx"


class OnnxRuntimeTarget:
    """Writes `model.onnx`: one graph whose task-exclusive operators stand inside `If`, weights stored once."""

    scheme = QuantScheme(
        "uint8", stored=True, carried=("Add",), passed=("DepthToSpace", "MaxPool", "Resize"), bias="int32"
    )
    dispatch = Dispatch("segments")
    traits = TargetTraits(
        name="onnxruntime",
        title="ONNX Runtime (CPU)",
        block_precisions=("float", "int8"),
        engine_precisions=("fp32",),
        channel_multiple=8,
        runtime="onnxruntime",
        extra="all",
        int8_channel_bytes=scheme.channel_bytes,
    )

    def build(self, net: MultiTaskNet, precision: Mapping[str, str], ranges: Ranges | None, folder: Path) -> list[Path]:
        """Write the engine; see `edgemtl.targets.ExportTarget`."""
        graph, ranges = check_build(net, precision, ranges, self.traits)
        model = with_conditions(
            quantize(emit_graph(graph, self.dispatch), precision, ranges, self.scheme), graph.outputs
        )
        write_atomic(folder / _MODEL, model.SerializeToString(deterministic=True))
        return write_spec(folder, self.traits, graph, {"model": _MODEL}, precision)


ONNXRUNTIME = OnnxRuntimeTarget()
