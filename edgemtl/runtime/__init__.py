"""Run a bundle or an engine on this machine: any subset of its tasks, without torch."""

from edgemtl.runtime.backends.onnxruntime import DISABLED_OPTIMIZERS, kernel_times
from edgemtl.runtime.backends.signal_stack import signal_stack_kept
from edgemtl.runtime.engine import Engine, load_image, prepare_image, read_bundle
from edgemtl.runtime.opening import open_engine, runtime_names
from edgemtl.runtime.schedule import EngineCall, Job, Schedule, ScheduleRun, TaskRun, parse_schedule, run_schedule
from edgemtl.runtime.session import (
    CLOSED,
    ENGINE_FILE,
    EngineSpec,
    OperatorTime,
    Outputs,
    Session,
    block_of,
    check_image,
    flag_name,
)
from edgemtl.runtime.shared import SharedPart, factor_name
from edgemtl.runtime.streaming.graph import MIXTURE, Expert, Operator, StreamGraph, Weight
from edgemtl.runtime.streaming.operators import OPERATORS
from edgemtl.runtime.streaming.weights import ALIGNMENT

__all__ = [
    "ALIGNMENT",
    "CLOSED",
    "DISABLED_OPTIMIZERS",
    "ENGINE_FILE",
    "MIXTURE",
    "OPERATORS",
    "Engine",
    "EngineCall",
    "EngineSpec",
    "Expert",
    "Job",
    "Operator",
    "OperatorTime",
    "Outputs",
    "Schedule",
    "ScheduleRun",
    "Session",
    "SharedPart",
    "StreamGraph",
    "TaskRun",
    "Weight",
    "block_of",
    "check_image",
    "factor_name",
    "flag_name",
    "kernel_times",
    "load_image",
    "open_engine",
    "parse_schedule",
    "prepare_image",
    "read_bundle",
    "run_schedule",
    "runtime_names",
    "signal_stack_kept",
]
