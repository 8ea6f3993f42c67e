"""The search along two orders: precisions of the whole net first, then the widest net for each kind of precision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edgemtl.errors import UnsupportedError, UserError
from edgemtl.nas.precision.finalists import Base, Candidate, Finalist, choose, measure
from edgemtl.nas.precision.forms import NarrowForms
from edgemtl.nas.precision.joint import JointSearch, needs_pruning, open_narrowing, whole_cost
from edgemtl.nas.precision.proposal import Proposal
from edgemtl.nas.precision.request import PrecisionRequest
from edgemtl.nas.precision.setup import Setup
from edgemtl.nas.precision.state import Scored
from edgemtl.nas.prune import Narrowing
from edgemtl.progress import Progress, Report, note
from edgemtl.results import RESULT_FILE

__all__ = ["GreedySearch", "timed_finalists"]


@dataclass(frozen=True)
class GreedySearch:
    """The search without a strategy; a `NetSearch`."""

    request: PrecisionRequest

    def narrowing(self, setup: Setup, report: Report) -> Narrowing | None:
        """The net as a module where a budget needs fewer channels; else it is opened when precision is not enough."""
        return open_narrowing(self.request, setup, report) if needs_pruning(setup) else None

    def has_ended(self) -> bool:
        """See `NetSearch`."""
        return (self.request.out / RESULT_FILE).is_file()

    def finalists(
        self, whole: Proposal, narrowing: Narrowing | None, scored: Scored, report: Report
    ) -> tuple[list[Finalist], NarrowForms | None]:
        """See `NetSearch`; channels are removed where no precision alone keeps the budgets and floors."""
        request, setup = self.request, whole.setup
        candidates = list(whole.candidates())
        finalists = timed_finalists(candidates, setup, report)
        if choose(finalists).feasible:
            if request.tuning.steps:
                note(report, "nothing is pruned, as precision alone keeps the budgets: nothing is trained")
            return finalists, None
        narrowing = narrowing or _narrowing_if_any(request, setup, report)
        if narrowing is None:
            return finalists, None
        ms = scored.latency_ms("the net in float", lambda: finalists[0].latency_ms)
        forms, base = NarrowForms(whole, narrowing, scored, report), Base(ms, whole_cost(setup))
        joint, uniform = JointSearch(request, forms, base, report), [each for each in candidates if each.uniform]
        return timed_finalists([*uniform, *joint.candidates()], setup, report), forms

    def choose(self, finalists: Sequence[Finalist]) -> Finalist:
        """See `NetSearch`: the fastest that keeps all limits."""
        return choose(finalists)

    def evaluated(self, scored: Scored) -> int:
        """How many engines were scored."""
        return scored.engines

    def mark_ended(self) -> None:
        """Nothing: a result is of all that there is."""


def timed_finalists(candidates: Sequence[Candidate], setup: Setup, report: Report) -> list[Finalist]:
    """The candidates, the net in float first, timed in turns."""
    report(Progress("finalists", 0, 1, f"{len(candidates)} timed in turns"))
    finalists = measure(candidates, setup.budgets, setup.floors)
    report(Progress("finalists", 1, 1))
    return finalists


def _narrowing_if_any(request: PrecisionRequest, setup: Setup, report: Report) -> Narrowing | None:
    """The net as a module, or None, with a note, where its channels cannot be removed."""
    try:
        return open_narrowing(request, setup, report)
    except (UserError, UnsupportedError) as error:
        note(report, f"no precision keeps the budgets, and nothing is pruned: {error}")
        return None
