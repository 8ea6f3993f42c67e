"""INT8 and BF16 before they are built: ranges, a target's scheme, and a simulation that agrees with its engine."""

from edgemtl.models.quantization.bias import correct_biases
from edgemtl.models.quantization.calibration import RangeObserver, calibrate
from edgemtl.models.quantization.in_place import rounding_layers
from edgemtl.models.quantization.learning import RoundedNet
from edgemtl.models.quantization.plan import (
    HALF_LARGEST,
    HALF_ROOM,
    WEIGHTED,
    Parameters,
    QuantPlan,
    QuantScheme,
    Ranges,
    check_precision,
    parameters_of,
    plan_quantization,
    weight_scales,
)
from edgemtl.models.quantization.rounding import round_weights
from edgemtl.models.quantization.simulation import Simulation, simulate, simulate_graph
from edgemtl.models.quantization.statistics import recalibrate_rounded

__all__ = [
    "HALF_LARGEST",
    "HALF_ROOM",
    "WEIGHTED",
    "Parameters",
    "QuantPlan",
    "QuantScheme",
    "RangeObserver",
    "Ranges",
    "RoundedNet",
    "Simulation",
    "calibrate",
    "check_precision",
    "correct_biases",
    "parameters_of",
    "plan_quantization",
    "recalibrate_rounded",
    "round_weights",
    "rounding_layers",
    "simulate",
    "simulate_graph",
    "weight_scales",
]
