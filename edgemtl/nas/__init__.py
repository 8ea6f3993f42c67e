"""The search layer: spaces, designs, and the strategies that choose among them."""

from edgemtl.nas._evaluator import Candidate, Evaluator
from edgemtl.nas._levels import Level, Levels, plan_levels
from edgemtl.nas._preflight import PreflightRow
from edgemtl.nas._run import RunFolder
from edgemtl.nas._search import SearchEvent, SearchRequest, search
from edgemtl.nas._space import Design, Space, load_space, space_names
from edgemtl.nas._strategies import strategy_names
from edgemtl.nas._tune import TUNING, fine_tune

__all__ = [
    "TUNING",
    "Candidate",
    "Design",
    "Evaluator",
    "Level",
    "Levels",
    "PreflightRow",
    "RunFolder",
    "SearchEvent",
    "SearchRequest",
    "Space",
    "fine_tune",
    "load_space",
    "plan_levels",
    "search",
    "space_names",
    "strategy_names",
]
