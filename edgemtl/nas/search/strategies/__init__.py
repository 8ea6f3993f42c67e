"""How designs are proposed: what a strategy is, and one module or two for each."""

from edgemtl.nas.search.strategies.masks import MaskDistribution
from edgemtl.nas.search.strategies.preference import make_table, widths_for
from edgemtl.nas.search.strategies.registry import STRATEGIES, make_strategy
from edgemtl.nas.search.strategies.sampler import DesignSampler, evaluated_before, measured_in
from edgemtl.nas.search.strategies.strategy import Needs, Preparation, Prepared, SamplerStrategy, Strategy

__all__ = [
    "STRATEGIES",
    "DesignSampler",
    "MaskDistribution",
    "Needs",
    "Preparation",
    "Prepared",
    "SamplerStrategy",
    "Strategy",
    "evaluated_before",
    "make_strategy",
    "make_table",
    "measured_in",
    "widths_for",
]
