"""Run a bundle or an engine on this machine: any subset of its tasks, without torch."""

from edgemtl.runtime._engine import Engine, load_image, prepare_image
from edgemtl.runtime._open import open_engine, runtime_names
from edgemtl.runtime._postprocess import postprocess
from edgemtl.runtime._schedule import EngineCall, Job, Schedule, ScheduleRun, TaskRun, parse_schedule, run_schedule
from edgemtl.runtime._session import EngineSpec, OperatorTime, Session, block_of, flag_name
from edgemtl.runtime._shared import SharedPart, factor_name

__all__ = [
    "Engine",
    "EngineCall",
    "EngineSpec",
    "Job",
    "OperatorTime",
    "Schedule",
    "ScheduleRun",
    "Session",
    "SharedPart",
    "TaskRun",
    "block_of",
    "factor_name",
    "flag_name",
    "load_image",
    "open_engine",
    "parse_schedule",
    "postprocess",
    "prepare_image",
    "run_schedule",
    "runtime_names",
]
