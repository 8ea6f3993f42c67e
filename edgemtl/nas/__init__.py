"""The search layer: spaces, designs, and the strategies that choose among them."""

from edgemtl.nas._apply_pruning import PRUNING_FILE, apply_pruning
from edgemtl.nas._evaluator import Candidate, Evaluator
from edgemtl.nas._levels import Level, Levels, plan_levels
from edgemtl.nas._preflight import FloorRow, PreflightRow
from edgemtl.nas._prune import PruneRequest, Pruning, open_pruning, prune
from edgemtl.nas._prune_module import MODULE_FILE, ModuleRequest, prune_module
from edgemtl.nas._run import CONFIG_FILE, RunFolder
from edgemtl.nas._search import SearchEvent, SearchRequest, search
from edgemtl.nas._space import Design, Space, load_space, space_names
from edgemtl.nas._strategies import strategy_names
from edgemtl.nas._tune import TUNING, fine_tune

__all__ = [
    "CONFIG_FILE",
    "MODULE_FILE",
    "PRUNING_FILE",
    "TUNING",
    "Candidate",
    "Design",
    "Evaluator",
    "FloorRow",
    "Level",
    "Levels",
    "ModuleRequest",
    "PreflightRow",
    "PruneRequest",
    "Pruning",
    "RunFolder",
    "SearchEvent",
    "SearchRequest",
    "Space",
    "apply_pruning",
    "fine_tune",
    "load_space",
    "open_pruning",
    "plan_levels",
    "prune",
    "prune_module",
    "search",
    "space_names",
    "strategy_names",
]
