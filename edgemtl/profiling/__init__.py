"""The cost of a model on this machine: latency, operators, memory and counts, each figure with where it came from.

Works without torch. `profile` measures a bundle, an engine or an ONNX file; `measure` and `compare` time any call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgemtl.profiling.conditions import conditions_of
from edgemtl.profiling.demand import Demand, measure_demand
from edgemtl.profiling.measurer import (
    Measurer,
    MeteredMeasurer,
    NoMeasurer,
    Observation,
    ObservedSession,
    TimedCall,
    Untimed,
)
from edgemtl.profiling.measurers import find_measurer, measurer_names
from edgemtl.profiling.profiler import profile
from edgemtl.profiling.rails import Rail, find_rails
from edgemtl.profiling.remote.board import Board, board_at, close_boards
from edgemtl.profiling.remote.facts import BoardFacts, read_board
from edgemtl.profiling.remote.measurer import how_to_install
from edgemtl.profiling.samples import (
    LatencyBlock,
    Ratio,
    Samples,
    percentile,
    percentile_interval,
    ratios,
    samples_needed,
)
from edgemtl.profiling.schema import (
    Counts,
    Energy,
    EnergyFigure,
    Figure,
    Operators,
    OperatorShare,
    Profile,
    Stability,
    profile_file,
    read_profile,
    write_profile,
)
from edgemtl.profiling.switching import LevelCost, measure_levels
from edgemtl.profiling.timing import Call, compare, measure
from edgemtl.profiling.turns import no_collection

if TYPE_CHECKING:
    from edgemtl.profiling.count import Cost, Count, count_graph, count_operators

__all__ = [
    "Board",
    "BoardFacts",
    "Call",
    "Cost",
    "Count",
    "Counts",
    "Demand",
    "Energy",
    "EnergyFigure",
    "Figure",
    "LatencyBlock",
    "LevelCost",
    "Measurer",
    "MeteredMeasurer",
    "NoMeasurer",
    "Observation",
    "ObservedSession",
    "OperatorShare",
    "Operators",
    "Profile",
    "Rail",
    "Ratio",
    "Samples",
    "Stability",
    "TimedCall",
    "Untimed",
    "board_at",
    "close_boards",
    "compare",
    "conditions_of",
    "count_graph",
    "count_operators",
    "find_measurer",
    "find_rails",
    "how_to_install",
    "measure",
    "measure_demand",
    "measure_levels",
    "measurer_names",
    "no_collection",
    "percentile",
    "percentile_interval",
    "profile",
    "profile_file",
    "ratios",
    "read_board",
    "read_profile",
    "samples_needed",
    "write_profile",
]


def __getattr__(name: str) -> Any:
    """Counting needs the package onnx, which measuring does not: it is imported when it is first used."""
    if name not in ("Cost", "Count", "count_graph", "count_operators"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from edgemtl.profiling import count

    return getattr(count, name)
