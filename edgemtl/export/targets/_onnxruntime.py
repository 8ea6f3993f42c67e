"""ONNX Runtime on CPUs: one file, one session, unwanted tasks inside `If`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from edgemtl._files import write_atomic
from edgemtl.export._emit import emit_graph
from edgemtl.export._partition import with_conditions
from edgemtl.models._graph import trace
from edgemtl.runtime import EngineSpec
from edgemtl.targets import TargetTraits

if TYPE_CHECKING:
    from edgemtl.models import MultiTaskNet

__all__ = ["ONNXRUNTIME"]


class OnnxRuntimeTarget:
    """Writes `model.onnx`: one graph whose task-exclusive operators stand inside `If`, weights stored once."""

    traits = TargetTraits(
        name="onnxruntime",
        title="ONNX Runtime (CPU)",
        block_precisions=("float", "int8"),
        engine_precisions=("fp32",),
        channel_multiple=8,
        runtime="onnxruntime",
        extra="onnxruntime",
    )

    def build(self, net: MultiTaskNet, precision: Mapping[str, str], ranges: object, folder: Path) -> list[Path]:
        """Write the engine; see `edgemtl.targets.ExportTarget`."""
        graph = trace(net)
        model = with_conditions(emit_graph(graph), graph.outputs)
        write_atomic(folder / "model.onnx", model.SerializeToString(deterministic=True))
        size = (1, 3, *graph.input_size)
        spec = EngineSpec("onnxruntime", "onnxruntime", tuple(graph.outputs), size, {"model": "model.onnx"}, {"outputs": dict(graph.outputs)})
        spec.write(folder)
        return [Path("model.onnx"), Path("engine.json")]


ONNXRUNTIME = OnnxRuntimeTarget()
