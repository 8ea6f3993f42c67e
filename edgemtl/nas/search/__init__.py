"""The search itself: one loop, and the strategies that propose designs."""

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

__all__ = [
    "EVALUATIONS",
    "STRATEGIES",
    "DesignSampler",
    "MaskDistribution",
    "Needs",
    "Preflight",
    "Preparation",
    "Prepared",
    "SamplerStrategy",
    "SearchRequest",
    "Strategy",
    "as_before",
    "default_steps",
    "evaluated_before",
    "make_strategy",
    "make_table",
    "measured_in",
    "search",
    "widths_for",
]
