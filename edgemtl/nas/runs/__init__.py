"""The folder of a run, its outcome, and fine-tuning of what a run kept."""

from edgemtl.nas.runs.finetune import (
    TUNING,
    OneDesign,
    fine_tune,
)
from edgemtl.nas.runs.folder import (
    RunFolder,
    run_tasks,
)
from edgemtl.nas.runs.outcome import (
    RunInfo,
    finalize_run,
)

__all__ = [
    "TUNING",
    "OneDesign",
    "RunFolder",
    "RunInfo",
    "finalize_run",
    "fine_tune",
    "run_tasks",
]
