"""What a model costs on this machine: latency, operators, memory and counts, each figure with where it came from.

Works without torch. `profile` measures a bundle, an engine or an ONNX file; `measure` and `compare` time any call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgemtl.profiling._demand import Demand, measure_demand
from edgemtl.profiling._measure import Call, Progress, compare, measure
from edgemtl.profiling._profile import profile
from edgemtl.profiling._samples import (
    LatencyBlock,
    Ratio,
    Samples,
    percentile,
    percentile_interval,
    ratios,
    samples_needed,
)
from edgemtl.profiling._schema import OperatorShare, Profile, Stability, profile_file, read_profile, write_profile
from edgemtl.profiling._switching import LevelCost, measure_levels

if TYPE_CHECKING:
    from edgemtl.profiling._count import Cost, Count, count_graph

__all__ = [
    "Call",
    "Cost",
    "Count",
    "Demand",
    "LatencyBlock",
    "LevelCost",
    "OperatorShare",
    "Profile",
    "Progress",
    "Ratio",
    "Samples",
    "Stability",
    "compare",
    "count_graph",
    "measure",
    "measure_demand",
    "measure_levels",
    "percentile",
    "percentile_interval",
    "profile",
    "profile_file",
    "ratios",
    "read_profile",
    "samples_needed",
    "write_profile",
]


def __getattr__(name: str) -> Any:
    """Counting needs the package onnx, which measuring does not: it is imported when it is first used."""
    if name not in ("Cost", "Count", "count_graph"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from edgemtl.profiling import _count

    return getattr(_count, name)
