"""The search itself: one loop, and the strategies that propose designs."""

from edgemtl.nas.search.helpers import HelperWork, run_helpers
from edgemtl.nas.search.loop import DesignEvaluator, Worker, evaluate_all, worker_name
from edgemtl.nas.search.problem import Preflight
from edgemtl.nas.search.request import EVALUATIONS, SearchRequest, as_before, check_workers, default_steps
from edgemtl.nas.search.run import search
from edgemtl.nas.search.seeding import seeding_turn
from edgemtl.nas.search.strategies import (
    STRATEGIES,
    DesignSampler,
    MaskDistribution,
    Needs,
    Preparation,
    Prepared,
    SamplerStrategy,
    Strategy,
    evaluated_before,
    make_strategy,
    make_table,
    measured_in,
    widths_for,
)
from edgemtl.nas.search.study import (
    RunStudy,
    evaluations_in,
    is_seeded,
    storage_failures,
    take_known,
    wanted_in,
)
from edgemtl.nas.search.workers import end_abandoned

__all__ = [
    "EVALUATIONS",
    "STRATEGIES",
    "DesignEvaluator",
    "DesignSampler",
    "HelperWork",
    "MaskDistribution",
    "Needs",
    "Preflight",
    "Preparation",
    "Prepared",
    "RunStudy",
    "SamplerStrategy",
    "SearchRequest",
    "Strategy",
    "Worker",
    "as_before",
    "check_workers",
    "default_steps",
    "end_abandoned",
    "evaluate_all",
    "evaluated_before",
    "evaluations_in",
    "is_seeded",
    "make_strategy",
    "make_table",
    "measured_in",
    "run_helpers",
    "search",
    "seeding_turn",
    "storage_failures",
    "take_known",
    "wanted_in",
    "widths_for",
    "worker_name",
]
