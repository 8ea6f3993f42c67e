"""`edgemtl search NET`: from a net of one's own and images to its channels and the precision of each block."""

from __future__ import annotations

import time
from collections.abc import Sequence

from edgemtl.errors import UnsupportedError, UserError
from edgemtl.files.claim import claim
from edgemtl.nas.precision.finalists import Base, Candidate, Finalist, choose, measure
from edgemtl.nas.precision.joint import JointSearch, needs_pruning, open_narrowing, whole_cost
from edgemtl.nas.precision.outcome import make_result
from edgemtl.nas.precision.proposal import Proposal
from edgemtl.nas.precision.request import PrecisionRequest
from edgemtl.nas.precision.setup import Setup, set_up
from edgemtl.nas.precision.state import Scored, begin
from edgemtl.nas.prune import Narrowing
from edgemtl.own import write_precision
from edgemtl.progress import Progress, Report, note, silent
from edgemtl.results import RESULT_FILE, Result, read_result, write_result
from edgemtl.signals import deferred

__all__ = ["search_precision"]


def search_precision(request: PrecisionRequest, report: Report = silent) -> Result:
    """Choose channels and precisions of a net of one's own; writes and returns the result.

    Precisions of the whole net come first: of the engine and of each block. Where none of them keeps the budgets and
    the floors, channels are removed too, group by group, as few as each precision needs to keep the budgets. INT8 is
    calibrated on a third of the photos, all is chosen on another third, and reported on the last, or on the splits of a
    data set; scores are each task's own metrics where there are labels, else its agreement with the float net. The net
    in float and each uniform precision are always among the finalists, which are timed in turns on the target. Raises
    `UserError` for anything that cannot be met or understood. What was scored is kept after each engine: `resume` goes
    on from there.
    """
    with claim(request.out, "search"):
        return _search(request, report)


def _search(request: PrecisionRequest, report: Report) -> Result:
    started = time.monotonic()
    setup = set_up(request, report)
    narrowing = open_narrowing(request, setup, report) if needs_pruning(setup) else None
    begin(request.out, setup.config, request.resume)
    if (request.out / RESULT_FILE).is_file():
        return read_result(request.out)
    scored = Scored.of(request.out)
    whole = Proposal(setup, scored, report)
    candidates = list(whole.candidates())
    finalists, joint = _measured(candidates, setup, report), None
    if not choose(finalists).feasible:
        narrowing = narrowing or _narrowing_if_any(request, setup, report)
    elif request.tuning.steps:
        note(report, "nothing is pruned, as precision alone keeps the budgets: nothing is trained")
    if narrowing is not None and not choose(finalists).feasible:
        ms = scored.latency_ms("the net in float", lambda: finalists[0].latency_ms)
        joint = JointSearch(request, whole, narrowing, scored, Base(ms, whole_cost(setup)), report)
        uniform = [each for each in candidates if each.uniform]
        finalists = _measured([*uniform, *joint.candidates()], setup, report)
    best = choose(finalists)
    result = make_result(request, finalists, best, (scored.engines, started), report)
    with deferred():  # an older precision and a newer result would not go together
        _write_choice(request, setup, best.candidate, joint)
        write_result(request.out, result)
    return result


def _measured(candidates: Sequence[Candidate], setup: Setup, report: Report) -> list[Finalist]:
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


def _write_choice(request: PrecisionRequest, setup: Setup, best: Candidate, joint: JointSearch | None) -> None:
    """Write the chosen precision, and what is left of the net where channels were removed."""
    target, whole = setup.bench.target.traits.name, best.setup.whole
    if joint is not None and not whole:
        joint.write(request.out, best)
    write_precision(request.out, best.precision, best.setup.digest, target, "" if whole else setup.digest)
