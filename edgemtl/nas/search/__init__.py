"""The search itself: one loop, and the strategies that propose designs."""

from edgemtl.nas.search.loop import DesignEvaluator, Worker, evaluate_all, worker_name
from edgemtl.nas.search.problem import Preflight
from edgemtl.nas.search.request import EVALUATIONS, SearchRequest, as_before, default_steps
from edgemtl.nas.search.run import search
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
from edgemtl.nas.search.study import evaluations_in, is_refined, is_seeded, mark_refined, take_known, wanted_in
from edgemtl.nas.search.workers import end_abandoned

__all__ = [
    "EVALUATIONS",
    "STRATEGIES",
    "DesignEvaluator",
    "DesignSampler",
    "MaskDistribution",
    "Needs",
    "Preflight",
    "Preparation",
    "Prepared",
    "SamplerStrategy",
    "SearchRequest",
    "Strategy",
    "Worker",
    "as_before",
    "default_steps",
    "end_abandoned",
    "evaluate_all",
    "evaluated_before",
    "evaluations_in",
    "is_refined",
    "is_seeded",
    "make_strategy",
    "make_table",
    "mark_refined",
    "measured_in",
    "search",
    "take_known",
    "wanted_in",
    "widths_for",
    "worker_name",
]
