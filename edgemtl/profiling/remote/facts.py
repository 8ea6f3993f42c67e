"""A board in its own words: the machine, its system, and the packages that engines need there. Nothing is measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from edgemtl.devices import Reach
from edgemtl.errors import printable
from edgemtl.profiling.remote.board import FOREIGN, Board
from edgemtl.profiling.remote.measurer import RUNTIMES

__all__ = ["BoardFacts", "read_board"]


@dataclass(frozen=True)
class BoardFacts:
    """The answer of a board: `machine` and class of `processor`, its `system` in words, `packages` and `rails`.

    Packages are numpy and what the agent opens engines with, each with the version that the board's Python has of it:
    "unknown" where none is written down, None where the package is not there. Rails are those whose energy is measured
    by; where there are none, `no_rails` says why.
    """

    machine: str
    processor: str
    system: str
    packages: Mapping[str, str | None]
    rails: tuple[str, ...]
    no_rails: str


def read_board(reach: Reach) -> BoardFacts:
    """Log in, ask, and leave nothing there; raises `UserError`, one line, where the board is not reached or refuses."""
    board = Board(reach)
    try:
        return _facts_of(board)
    finally:
        board.close()


def _facts_of(board: Board) -> BoardFacts:
    greeting = board.greeting
    try:
        own, sensors, there = greeting["environment"], dict(greeting["sensors"]), list(greeting["packages"])
        energy = dict(greeting["energy"])
        mode = f"power mode {sensors['power_mode']}" if "power_mode" in sensors else ""
        release = str(sensors.get("release", "")).strip("# ").partition(", GCID")[0]
        words = (sensors.get("model", ""), release or own["platform"], mode, f"Python {own['python']}")
        return BoardFacts(
            printable(str(greeting["machine"])),
            printable(str(own["cpu"]["class"])),
            printable(", ".join(str(word) for word in words if word)),
            {
                name: printable(str(own["packages"].get(name) or "unknown")) if name in there else None
                for name in ("numpy", *RUNTIMES.values())
            },
            tuple(printable(str(rail)) for rail in list(energy["rails"])),
            printable(str(energy["reason"])),
        )
    except FOREIGN as error:
        raise board.not_understood(error) from error
