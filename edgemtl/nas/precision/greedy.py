"""The search along two orders: precisions of the whole net first, then the widest net for each kind of precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from edgemtl.errors import UnsupportedError, UserError
from edgemtl.nas.precision.finalists import Base, Finalist, choose, timed_finalists
from edgemtl.nas.precision.forms import ROUNDED, NarrowForms
from edgemtl.nas.precision.joint import JointSearch, needs_pruning, open_narrowing, whole_cost
from edgemtl.nas.precision.proposal import Proposal
from edgemtl.nas.precision.request import PrecisionRequest
from edgemtl.nas.precision.rounded import NOT_WORTH, trains_rounded, with_rounded
from edgemtl.nas.precision.setup import Setup
from edgemtl.nas.precision.state import Scored
from edgemtl.nas.prune import Narrowing
from edgemtl.nas.runs import RunInfo
from edgemtl.progress import Report, note
from edgemtl.results import RESULT_FILE

__all__ = ["GreedySearch"]


@dataclass(frozen=True)
class GreedySearch:
    """The search without a strategy; a `NetSearch`."""

    request: PrecisionRequest

    def narrowing(self, setup: Setup, report: Report) -> Narrowing | None:
        """The net as a module where a budget needs fewer channels; else it is opened when precision is not enough."""
        if not needs_pruning(setup):
            return None
        narrowing = open_narrowing(self.request, setup, report)
        narrowing.check_train_step(self.request.tuning)
        return narrowing

    def of_run(self, config: Mapping[str, Any]) -> Self:
        """See `NetSearch`."""
        return self

    def has_ended(self) -> bool:
        """See `NetSearch`."""
        return (self.request.out / RESULT_FILE).is_file()

    def finalists(
        self, whole: Proposal, narrowing: Narrowing | None, scored: Scored, report: Report
    ) -> tuple[list[Finalist], NarrowForms | None]:
        """See `NetSearch`.

        The net is trained through eight bits where that was asked for and could make it faster; channels are removed
        where no precision alone keeps the budgets and floors then.
        """
        request, setup = self.request, whole.setup
        finalists = timed_finalists(list(whole.candidates()), setup, report)
        trains, feasible = trains_rounded(request, finalists), choose(finalists).feasible
        if request.tuning.steps and feasible and not trains:
            note(report, NOT_WORTH)
        if feasible and not trains:
            return finalists, None
        narrowing = narrowing or _narrowing_if_any(request, setup, report)
        if narrowing is None:
            return finalists, None
        forms = NarrowForms(whole, narrowing, scored, report)
        with_trained = with_rounded(request, finalists, forms, report) if trains else finalists
        if choose(with_trained).feasible:
            return with_trained, forms
        return self._narrower(with_trained, forms, scored, report), forms

    def _narrower(
        self, finalists: Sequence[Finalist], forms: NarrowForms, scored: Scored, report: Report
    ) -> list[Finalist]:
        """The uniform precisions of the whole net, what was trained, and narrower forms that keep the budgets."""
        setup, ms = forms.whole.setup, scored.latency_ms("the net in float", lambda: finalists[0].latency_ms)
        joint = JointSearch(self.request, forms, Base(ms, whole_cost(setup)), report)
        candidates = [each.candidate for each in finalists]
        whole = [each for each in candidates if each.uniform or each.setup.name == ROUNDED]
        return timed_finalists([*whole, *joint.candidates()], setup, report)

    def choose(self, finalists: Sequence[Finalist]) -> Finalist:
        """See `NetSearch`: the fastest that keeps all limits."""
        return choose(finalists)

    def info(self, finalists: Sequence[Finalist], scored: Scored, started: float) -> RunInfo:
        """See `NetSearch`."""
        pruned = any(each.candidate.setup.channels for each in finalists)
        name = "pruning and precision" if pruned else "precision"
        return RunInfo(self.request.command, None, name, self.request.budgets, scored.engines, started)

    def mark_ended(self) -> None:
        """Nothing: a result is of all that there is."""


def _narrowing_if_any(request: PrecisionRequest, setup: Setup, report: Report) -> Narrowing | None:
    """The net as a module, or None, with a note, where it is none whose channels could be removed."""
    try:
        return open_narrowing(request, setup, report)
    except (UserError, UnsupportedError) as error:
        note(report, f"nothing is pruned or trained: {error}")
        return None
