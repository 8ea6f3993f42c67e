"""Progress of long work: one event type, and one type of callback that receives it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Callable

__all__ = ["Progress", "Report", "note", "silent"]


@dataclass(frozen=True)
class Progress:
    """Progress of a long task: `done` of `total` in a stage, and a few words for people.

    A `total` of 0 counts nothing: the text is a note. `seconds_left` is an estimate of the work itself, None where it
    has none. Tasks that report more derive from this class.
    """

    stage: str
    done: int
    total: int
    text: str = ""
    seconds_left: float | None = None


Report = Callable[[Progress], None]
"""Callback of a long task, called from its own thread; an exception that it raises ends the task."""


def silent(progress: Progress) -> None:
    """Ignore progress: the default of every long task."""


def note(report: Report, text: str) -> None:
    """Report one line that counts nothing and stays."""
    report(Progress("", 0, 0, text))
