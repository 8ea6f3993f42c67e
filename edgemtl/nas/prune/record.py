"""The record of a pruning, as `pruning.json` holds it."""

from __future__ import annotations

from typing import Any

from edgemtl.models import TaskNet
from edgemtl.nas.prune.apply import PRUNING_SCHEMA
from edgemtl.nas.prune.fit import Fit
from edgemtl.nas.prune.map import PruneMap
from edgemtl.nas.prune.prunable import Prunable

__all__ = ["pruning_record"]


def pruning_record(prunable: Prunable, prune_map: PruneMap, fit: Fit, narrow: TaskNet) -> dict[str, Any]:
    """The decisions: channels of every group before and after, the task that blocked it, and the cost.

    `compensated` says whether weights were made anew for what is gone.
    """
    after = prunable.criterion.losses(narrow, list(prune_map.base)).losses
    rows = [
        {
            "group": group.name,
            "convolutions": list(group.convolutions),
            "tasks": list(group.tasks),
            "parts": len(group.parts),
            "before": group.size,
            "after": fit.channels.get(group.name, group.size),
            "blocked_by": fit.blocked.get(group.name),
        }
        for group in prunable.groups
    ]
    losses = {task: {"before": loss, "after": after[task]} for task, loss in prune_map.base.items()}
    return {
        "schema": PRUNING_SCHEMA,
        "tolerance": fit.tolerance,
        "calibration_losses": losses,
        "groups": rows,
        "compensated": prunable.products is not None,
    }
