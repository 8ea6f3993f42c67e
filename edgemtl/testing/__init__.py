"""Conformance suites for pytest: a plug-in's tests inherit the one of what it brings, and so does edgemtl itself."""

from edgemtl.testing.families import (
    FamilyConformance,
)
from edgemtl.testing.kinds import (
    KindConformance,
)

__all__ = ["FamilyConformance", "KindConformance"]
