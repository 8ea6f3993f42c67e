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
    Asked,
    conclude,
)

__all__ = [
    "CONFIG_FILE",
    "TUNING",
    "Asked",
    "OneDesign",
    "RunFolder",
    "conclude",
    "fine_tune",
    "task_json",
]
