"""PAGCP pruning, of designs of a run and of modules of a user's own."""

from edgemtl.nas.prune.agreement import floor_without_labels
from edgemtl.nas.prune.apply import PRUNING_FILE, apply_pruning
from edgemtl.nas.prune.declared import NET_FILE, TASKS_FILE, DeclaredModule, open_declared
from edgemtl.nas.prune.finetuning import NO_TUNING, FineTuning, TrainStep, check_train_step, fine_tune
from edgemtl.nas.prune.fit import Fit
from edgemtl.nas.prune.groups import cut_channels, net_groups
from edgemtl.nas.prune.levels import NetLevel, parse_levels, plan_net_levels
from edgemtl.nas.prune.module import MODULE_FILE, UserModule
from edgemtl.nas.prune.module_groups import ModuleCosts, ParameterCost
from edgemtl.nas.prune.narrowing import Narrowing, NarrowNet
from edgemtl.nas.prune.pipeline import PruneRequest, prune
from edgemtl.nas.prune.run import RunDesign

__all__ = [
    "MODULE_FILE",
    "NET_FILE",
    "NO_TUNING",
    "PRUNING_FILE",
    "TASKS_FILE",
    "DeclaredModule",
    "FineTuning",
    "Fit",
    "ModuleCosts",
    "NarrowNet",
    "Narrowing",
    "NetLevel",
    "ParameterCost",
    "PruneRequest",
    "RunDesign",
    "TrainStep",
    "UserModule",
    "apply_pruning",
    "check_train_step",
    "cut_channels",
    "fine_tune",
    "floor_without_labels",
    "net_groups",
    "open_declared",
    "parse_levels",
    "plan_net_levels",
    "prune",
]
