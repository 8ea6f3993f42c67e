"""Conformance suites for pytest: a plug-in's tests inherit the one of what it brings, and so does edgemtl itself."""

from edgemtl.testing.examples import (
    SIZE,
    TASKS,
    experts_net,
    grid_net,
    images,
    samples_for,
    settle,
    small_net,
)
from edgemtl.testing.families import (
    FamilyConformance,
)
from edgemtl.testing.kinds import (
    KindConformance,
)
from edgemtl.testing.measurers import (
    MeasurerConformance,
)

__all__ = [
    "FamilyConformance",
    "KindConformance",
    "MeasurerConformance",
    "SIZE",
    "StrategyConformance",
    "TASKS",
    "experts_net",
    "grid_net",
    "images",
    "samples_for",
    "settle",
    "small_net",
]
