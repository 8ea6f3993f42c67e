"""The interface that supernets and training need of a space."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Protocol

from edgemtl.spaces.choices import Choice, Values
from edgemtl.spaces.plan import Plan
from edgemtl.tasks import Task

__all__ = ["DesignSource"]


class DesignSource(Protocol):
    """Designs to train and what their weights depend on: a `Space`, or a single design."""

    @property
    def name(self) -> str:
        """Name in files and messages."""
        ...

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Tasks of every design."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash of all that the weights depend on."""
        ...

    @property
    def architecture(self) -> tuple[Choice, ...]:
        """The choices in which designs differ, smallest option first."""
        ...

    @property
    def stages(self) -> Mapping[str, str]:
        """The stage of every block of the trunk, by the block's origin: what designs of several sizes have alike."""
        ...

    def plan(self, values: Values) -> Plan:
        """The static net that options mean."""
        ...

    def largest(self) -> Values:
        """The largest design."""
        ...

    def smallest(self) -> Values:
        """The smallest design."""
        ...

    def random(self, rng: random.Random) -> Values:
        """Any design."""
        ...
