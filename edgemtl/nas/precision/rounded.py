"""A net of one's own that is trained through eight bits, where that could make a faster net of it."""

from __future__ import annotations

from collections.abc import Sequence

from edgemtl.nas.precision.finalists import Finalist, choose, timed_finalists
from edgemtl.nas.precision.forms import ROUNDED, NarrowForms
from edgemtl.nas.precision.joint import TRAINING_FOLDER
from edgemtl.nas.precision.request import PrecisionRequest
from edgemtl.own import INT8
from edgemtl.progress import Report

__all__ = ["NOT_WORTH", "is_worth_training", "with_rounded"]

NOT_WORTH = (
    "nothing is trained: no channel is removed, and with all blocks in INT8 the net keeps its floors already, or is "
    "no faster than what is chosen"
)


def is_worth_training(finalists: Sequence[Finalist]) -> bool:
    """Whether a net in INT8 as a whole breaks nothing but floors, and is faster than what is chosen without it."""
    best = choose(finalists)
    return any(
        _breaks_floors_alone(each) and (not best.feasible or each.latency_ms[""] < best.latency_ms[""])
        for each in finalists
        if each.candidate.uniform and INT8 in each.candidate.precision.values.values()
    )


def _breaks_floors_alone(finalist: Finalist) -> bool:
    broken = [check for check in finalist.checks if not check.kept]
    return bool(broken) and all(check.metric for check in broken)


def with_rounded(
    request: PrecisionRequest, finalists: Sequence[Finalist], forms: NarrowForms, report: Report
) -> list[Finalist]:
    """The finalists, and the precisions of the net trained through eight bits, timed in turns with them."""
    trained = forms.rounded(request.tuning, request.out / TRAINING_FOLDER / ROUNDED)
    candidates = [*(each.candidate for each in finalists), *trained.candidates()]
    return timed_finalists(candidates, forms.whole.setup, report)
