"""A net of one's own that is trained through eight bits, where that could make a faster net of it."""

from __future__ import annotations

from collections.abc import Sequence

from edgemtl.errors import UnsupportedError, UserError
from edgemtl.nas.evaluation import RATIO_ALLOWED
from edgemtl.nas.precision.finalists import Finalist, acceptable, choose, timed_finalists
from edgemtl.nas.precision.forms import ROUNDED, NarrowForms
from edgemtl.nas.precision.joint import TRAINING_FOLDER
from edgemtl.nas.precision.request import PrecisionRequest
from edgemtl.own import INT8
from edgemtl.progress import Report, note
from edgemtl.train import CHECKPOINT_FILE

__all__ = ["NOT_WORTH", "is_worth_training", "trains_rounded", "with_rounded"]

NOT_WORTH = (
    "nothing is trained: no channel is removed, and INT8 in all blocks breaks no floor, or a budget too, or is not "
    "clearly faster than what keeps all limits"
)


def trains_rounded(request: PrecisionRequest, finalists: Sequence[Finalist]) -> bool:
    """Whether steps were asked for that are worth it; a training that was begun goes on, whatever is timed now."""
    begun = (request.out / TRAINING_FOLDER / ROUNDED / CHECKPOINT_FILE).is_file()
    return request.tuning.steps > 0 and (begun or is_worth_training(finalists))


def is_worth_training(finalists: Sequence[Finalist]) -> bool:
    """Whether a net in INT8 as a whole keeps all budgets, and would be chosen if its tasks lost less."""
    feasible = acceptable(finalists)
    chosen = choose(finalists).latency_ms[""] if feasible else float("inf")
    uniform = min((each.latency_ms[""] for each in feasible if each.candidate.uniform), default=float("inf"))
    return any(
        _keeps_budgets(each) and each.latency_ms[""] < min(chosen, RATIO_ALLOWED * uniform)
        for each in finalists
        if each.candidate.uniform and INT8 in each.candidate.precision.values.values()
    )


def _keeps_budgets(finalist: Finalist) -> bool:
    return all(check.kept or check.metric for check in finalist.checks)


def with_rounded(
    request: PrecisionRequest, finalists: list[Finalist], forms: NarrowForms, report: Report
) -> list[Finalist]:
    """The finalists, and the precisions of the net trained through eight bits, timed in turns with them.

    Where it cannot be trained they are answer enough: a note says why. Raises `UserError` for a user's own train step
    that fails.
    """
    try:
        trained = forms.rounded(request.tuning, request.out / TRAINING_FOLDER / ROUNDED)
    except UserError as error:
        if request.tuning.train_step and not isinstance(error, UnsupportedError):
            raise
        note(report, f"the net is not trained through eight bits: {error}")
        return finalists
    candidates = [*(each.candidate for each in finalists), *trained.candidates()]
    return timed_finalists(candidates, forms.whole.setup, report)
