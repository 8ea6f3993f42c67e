"""The folder of a run, its outcome, and fine-tuning of what a run kept."""

from edgemtl.nas.runs.finetune import fine_tune
from edgemtl.nas.runs.folder import RunFolder, check_free, run_tasks
from edgemtl.nas.runs.measurements import Measurements, front_designs, read_measurements, write_measurements
from edgemtl.nas.runs.outcome import Contender, RunInfo, finalize_run, score_result
from edgemtl.nas.runs.tuning import FINETUNING, TUNING, OneDesign, Tuned, by_labels, recipe_for, tune_design

__all__ = [
    "FINETUNING",
    "TUNING",
    "Contender",
    "Measurements",
    "OneDesign",
    "RunFolder",
    "RunInfo",
    "Tuned",
    "by_labels",
    "check_free",
    "finalize_run",
    "fine_tune",
    "front_designs",
    "read_measurements",
    "recipe_for",
    "run_tasks",
    "score_result",
    "tune_design",
    "write_measurements",
]
