"""Declarations of a network family for every block that some design of a space has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from edgemtl.spaces.choices import Option

__all__ = ["Slot"]


@dataclass(frozen=True)
class Slot:
    """Whose a block is (None: the trunk's), when it exists, and where a picture of the net puts it.

    `active_if` names the choices and the options under which it exists. It stands in the row `stage`, or without one in
    its task's own column. With a `column` it lies on a lattice whose rows are the stages, each of which has a place in
    every column; a `link` is drawn as a line from the row that it reads.
    """

    task: str | None = None
    active_if: Mapping[str, tuple[Option, ...]] = field(default_factory=dict)
    stage: str | None = None
    column: int | None = None
    link: bool = False
