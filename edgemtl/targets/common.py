"""The first and last step of every exporter: check the request, and describe the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgemtl.arithmetic import EXACT_INT8, EXACT_WEIGHT, lacking
from edgemtl.errors import UnsupportedError, UserError
from edgemtl.models.graph import Graph, trace
from edgemtl.models.quantization import QuantScheme, Ranges, check_precision
from edgemtl.runtime import EngineSpec, flag_name
from edgemtl.targets.onnx.task_model import TaskModel
from edgemtl.targets.target import ExportTarget, needs_of
from edgemtl.tasks import map_outputs
from edgemtl.traits import TargetTraits

if TYPE_CHECKING:
    from edgemtl.models import TaskNet

__all__ = ["check_build", "exact_on", "flags_of", "make_spec", "write_spec"]


def exact_on(arithmetic: str, scheme: QuantScheme) -> QuantScheme:
    """The scheme with weights that are multiplied exactly: of eight bits where the arithmetic has that, else of seven.

    Seven cost designs of the shipped supernet 0.8 % of a task's metric at most, most tasks less than half of that.
    Weights in steps that leave room for the largest pair only, or least squares, are no better. Eight bits by ONNX
    Runtime's kernels for unsigned weights would be exact too, but a convolution takes 1.45 times as long; its session
    option `session.x64quantprecision` changes nothing for convolutions.
    """
    if lacking((EXACT_INT8,), arithmetic):
        return replace(scheme, weight_limit=EXACT_WEIGHT)
    return replace(scheme, needs=(EXACT_INT8,))


def check_build(
    net: TaskNet, precision: Mapping[str, str], ranges: Ranges | None, traits: TargetTraits
) -> tuple[Graph, Ranges]:
    """The traced net and its ranges (empty where no block is INT8).

    Raises `UserError` for a precision that the target does not honour or INT8 without ranges, `UnsupportedError` naming
    operator and target for what cannot be written.
    """
    blocks = net.block_tasks
    check_precision(precision, blocks, traits.block_precisions, traits.engine_precisions, traits.name)
    eight = [name for name, value in precision.items() if value == "int8"]
    if eight and ranges is None:
        raise UserError(f"block {eight[0]} is int8 but no activation ranges were given: calibrate the net first")
    try:
        graph = trace(net)
    except UnsupportedError as error:
        raise UnsupportedError(f"target {traits.name}: {error}") from error
    return graph, ranges or Ranges({})


def flags_of(graph: Graph | TaskModel) -> dict[str, str]:
    """The boolean input of each task that a graph with conditions has; a graph of one task has none."""
    return {task: flag_name(task) for task in graph.outputs} if len(graph.outputs) > 1 else {}


def write_spec(
    folder: Path,
    target: ExportTarget,
    graph: Graph | TaskModel,
    files: Mapping[str, str],
    precision: Mapping[str, str],
    **options: Any,
) -> list[Path]:
    """Write `engine.json`; returns every file of the engine, relative to `folder`."""
    written = make_spec(target, graph, files, precision, **options).write(folder)
    return [*(Path(name) for name in files.values()), Path(written.name)]


def make_spec(
    target: ExportTarget,
    graph: Graph | TaskModel,
    files: Mapping[str, str],
    precision: Mapping[str, str],
    **options: Any,
) -> EngineSpec:
    """Content of `engine.json` for an engine."""
    return EngineSpec(
        target=target.traits.name,
        runtime=target.traits.runtime,
        tasks=tuple(graph.outputs),
        input=(1, 3, *graph.input_size),
        files=files,
        needs=needs_of(target, precision),
        options={
            "outputs": map_outputs(str, graph.outputs),
            "blocks": dict(graph.block_tasks),
            "precision": dict(precision),
            **options,
        },
    )
