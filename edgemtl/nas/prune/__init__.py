"""PAGCP pruning, of designs of a run and of modules of a user's own."""

from edgemtl.nas.prune.apply import (
    PRUNING_FILE,
    apply_pruning,
)
from edgemtl.nas.prune.groups import (
    cut as cut_channels,
)
from edgemtl.nas.prune.groups import (
    net_groups,
)
from edgemtl.nas.prune.module import (
    MODULE_FILE,
    ModuleRequest,
    prune_module,
)
from edgemtl.nas.prune.run import (
    PruneRequest,
    Pruning,
    open_pruning,
    prune,
)

__all__ = [
    "MODULE_FILE",
    "PRUNING_FILE",
    "ModuleRequest",
    "PruneRequest",
    "Pruning",
    "apply_pruning",
    "cut_channels",
    "net_groups",
    "open_pruning",
    "prune",
    "prune_module",
]
