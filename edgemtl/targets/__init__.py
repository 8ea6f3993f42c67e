"""Exporters: what a target is, and one module for each runtime."""

from edgemtl.targets.common import check_build, exact_on, flags_of, make_spec, write_spec
from edgemtl.targets.hls.project import FPGA_CLOCK_NS
from edgemtl.targets.hls.target import HlsTarget, within_budgets
from edgemtl.targets.onnx.dispatch import DispatchPolicy
from edgemtl.targets.onnx.emit import GRAPH_SCHEMA, emit, emit_graph
from edgemtl.targets.onnx.partition import with_conditions
from edgemtl.targets.onnx.quantize import quantize
from edgemtl.targets.onnx.task_model import TaskModel
from edgemtl.targets.onnxruntime import OnnxRuntimeTarget
from edgemtl.targets.openvino import OpenVinoTarget
from edgemtl.targets.registry import find_target, target_names, target_of
from edgemtl.targets.streaming import StreamingTarget
from edgemtl.targets.target import (
    EmulatingTarget,
    ExportTarget,
    ModelTarget,
    PlainTarget,
    SimulatingTarget,
    arithmetic_of,
    emulated,
    is_runnable,
    measurer_of,
    needs_of,
)
from edgemtl.targets.tensorrt.generations import TENSORRT_VERSIONS
from edgemtl.targets.tensorrt.lint import Problem, check_graph, lint
from edgemtl.targets.tensorrt.target import TensorRtTarget, on_board
from edgemtl.targets.tensorrt_rtx import GENERATIONS, TensorRtRtxTarget, build_plan

__all__ = [
    "FPGA_CLOCK_NS",
    "GENERATIONS",
    "GRAPH_SCHEMA",
    "TENSORRT_VERSIONS",
    "DispatchPolicy",
    "EmulatingTarget",
    "ExportTarget",
    "HlsTarget",
    "ModelTarget",
    "OnnxRuntimeTarget",
    "OpenVinoTarget",
    "PlainTarget",
    "Problem",
    "SimulatingTarget",
    "StreamingTarget",
    "TaskModel",
    "TensorRtRtxTarget",
    "TensorRtTarget",
    "arithmetic_of",
    "build_plan",
    "check_build",
    "check_graph",
    "emit",
    "emit_graph",
    "emulated",
    "exact_on",
    "find_target",
    "flags_of",
    "is_runnable",
    "lint",
    "make_spec",
    "measurer_of",
    "needs_of",
    "on_board",
    "quantize",
    "target_names",
    "target_of",
    "with_conditions",
    "within_budgets",
    "write_spec",
]
