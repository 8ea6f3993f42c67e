"""INT8 and BF16 before they are built: ranges, a target's scheme, and a simulation that agrees with its engine."""

from __future__ import annotations

from edgemtl.models._calibrate import calibrate
from edgemtl.models._quant_plan import (
    Parameters,
    QuantPlan,
    QuantScheme,
    Ranges,
    check_precision,
    parameters_of,
    plan_quantization,
    weight_scales,
)
from edgemtl.models._simulate import Simulation, simulate, simulate_graph

__all__ = [
    "Parameters",
    "QuantPlan",
    "QuantScheme",
    "Ranges",
    "Simulation",
    "calibrate",
    "check_precision",
    "parameters_of",
    "plan_quantization",
    "simulate",
    "simulate_graph",
    "weight_scales",
]
