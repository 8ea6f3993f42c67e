"""The folder of a run, its outcome, and fine-tuning of what a run kept."""

from edgemtl.nas.runs.finetune import (
    TUNING,
    OneDesign,
    fine_tune,
)
from edgemtl.nas.runs.folder import (
    CONFIG_FILE,
    RunFolder,
    task_json,
)
from edgemtl.nas.runs.outcome import (
    RunInfo,
    finalize_run,
)

__all__ = [
    "CONFIG_FILE",
    "TUNING",
    "OneDesign",
    "RunFolder",
    "RunInfo",
    "finalize_run",
    "fine_tune",
    "task_json",
]
