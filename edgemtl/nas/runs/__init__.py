"""The folder of a run, its outcome, and fine-tuning of what a run kept."""

from edgemtl.nas.runs.finetune import fine_tune
from edgemtl.nas.runs.folder import RunFolder, check_free, run_tasks
from edgemtl.nas.runs.measurements import Measurements, front_designs, read_measurements, write_measurements
from edgemtl.nas.runs.outcome import Contender, RunInfo, finalize_run, score_result
from edgemtl.nas.runs.tuning import TUNING, OneDesign, Tuned, tune_design

__all__ = [
    "TUNING",
    "Contender",
    "Measurements",
    "OneDesign",
    "RunFolder",
    "RunInfo",
    "Tuned",
    "check_free",
    "finalize_run",
    "fine_tune",
    "front_designs",
    "read_measurements",
    "run_tasks",
    "score_result",
    "tune_design",
    "write_measurements",
]
