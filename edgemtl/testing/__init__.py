"""Conformance suites for pytest: the tests of a plug-in, and edgemtl's own, inherit the suite of its kind of thing."""

from edgemtl.testing.examples import SIZE, TASKS, experts_net, grid_net, images, samples_for, settle, small_net
from edgemtl.testing.families import FamilyConformance
from edgemtl.testing.kinds import KindConformance
from edgemtl.testing.measurers import MeasurerConformance
from edgemtl.testing.nets import TaskNetConformance
from edgemtl.testing.sources import SourceConformance
from edgemtl.testing.strategies import StrategyConformance
from edgemtl.testing.targets import TargetConformance, mixed_precision

__all__ = [
    "SIZE",
    "TASKS",
    "FamilyConformance",
    "KindConformance",
    "MeasurerConformance",
    "SourceConformance",
    "StrategyConformance",
    "TargetConformance",
    "TaskNetConformance",
    "experts_net",
    "grid_net",
    "images",
    "mixed_precision",
    "samples_for",
    "settle",
    "small_net",
]
