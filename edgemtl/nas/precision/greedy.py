"""The search along two orders: precisions of the whole net first, then the widest net for each kind of precision."""

from __future__ import annotations

from collections.abc import Sequence

from edgemtl.errors import UnsupportedError, UserError
from edgemtl.nas.precision.finalists import Base, Candidate, Finalist, choose, measure
from edgemtl.nas.precision.forms import NarrowForms
from edgemtl.nas.precision.joint import JointSearch, open_narrowing, whole_cost
from edgemtl.nas.precision.proposal import Proposal
from edgemtl.nas.precision.request import PrecisionRequest
from edgemtl.nas.precision.setup import Setup
from edgemtl.nas.precision.state import Scored
from edgemtl.nas.prune import Narrowing
from edgemtl.progress import Progress, Report, note

__all__ = ["search_greedily", "timed_finalists"]


def search_greedily(
    request: PrecisionRequest, whole: Proposal, narrowing: Narrowing | None, scored: Scored, report: Report
) -> tuple[list[Finalist], NarrowForms | None]:
    """The finalists, the net in float first, and narrower forms of the net where channels were removed.

    They are where no precision alone keeps the budgets and floors; without a `narrowing` the net is opened for it then.
    """
    setup = whole.setup
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
