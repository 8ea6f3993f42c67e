"""How every long work tells how far it is: one event, one kind of function that hears it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Progress", "Report", "note", "silent"]


@dataclass(frozen=True)
class Progress:
    """How far a long work is: `done` of `total` in a stage, and a few words for people.

    A `total` of 0 counts nothing: the text is a note. `seconds_left` is an estimate of the work itself, None where it
    has none. Works that have more to tell derive from this class.
    """

    stage: str
    done: int
    total: int
    text: str = ""
    seconds_left: float | None = None


Report = Callable[[Progress], None]
"""What a long work calls as it goes, from its own thread; what it raises ends the work."""


def silent(progress: Progress) -> None:
    """Tell nobody: the default of every long work."""


def note(report: Report, text: str) -> None:
    """Report one line that counts nothing and stays."""
    report(Progress("", 0, 0, text))
