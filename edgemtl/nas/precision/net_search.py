"""How channels and precision of a net of one's own are searched: by the greedy search alone, or by a strategy too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

from edgemtl.errors import UserError
from edgemtl.nas.precision.by_strategy import StrategySearch
from edgemtl.nas.precision.finalists import Finalist
from edgemtl.nas.precision.forms import NarrowForms
from edgemtl.nas.precision.greedy import GreedySearch
from edgemtl.nas.precision.proposal import Proposal
from edgemtl.nas.precision.request import PrecisionRequest
from edgemtl.nas.precision.setup import Setup
from edgemtl.nas.precision.state import Scored
from edgemtl.nas.prune import Narrowing
from edgemtl.nas.runs import RunInfo
from edgemtl.progress import Report

__all__ = ["NetSearch", "search_for"]


class NetSearch(Protocol):
    """A search of one request; its run's folder is read and written only once the run has begun."""

    def narrowing(self, setup: Setup, report: Report) -> Narrowing | None:
        """The net as a module whose channels can be removed; None where the request alone does not call for it.

        Raises `UserError` where it does, and none can be.
        """
        ...

    def of_run(self, config: Mapping[str, Any]) -> Self:
        """The same, of a run with this configuration; `UserError` where a study elsewhere is of another."""
        ...

    def has_ended(self) -> bool:
        """Whether the run has a result of all that is requested."""
        ...

    def finalists(
        self, whole: Proposal, narrowing: Narrowing | None, scored: Scored, report: Report
    ) -> tuple[list[Finalist], NarrowForms | None]:
        """The finalists, the net in float first, and narrower forms of the net where channels were removed."""
        ...

    def choose(self, finalists: Sequence[Finalist]) -> Finalist:
        """The best of the finalists, or the nearest to the limits where none keeps them."""
        ...

    def info(self, finalists: Sequence[Finalist], scored: Scored, started: float) -> RunInfo:
        """The search as a result tells of it; `started` is when it began, by the monotonic clock."""
        ...

    def mark_ended(self) -> None:
        """Keep that the run's result speaks of all that was evaluated."""
        ...


def search_for(request: PrecisionRequest) -> NetSearch:
    """The search that a request is for; `UserError` for what is no use for a net of one's own."""
    if request.strategy:
        return StrategySearch.of(request)
    if request.workers != 1:
        raise UserError(f"{request.workers} workers given, which share designs that a strategy proposes: name one")
    if request.storage is not None:
        raise UserError("--storage is where workers share designs that a strategy proposes: name one")
    return GreedySearch(request)
