"""`edgemtl search NET`: from a net of one's own and images to its channels and the precision of each block."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgemtl.files.claim import claim
from edgemtl.nas.precision.finalists import Candidate
from edgemtl.nas.precision.forms import NarrowForms
from edgemtl.nas.precision.net_search import search_for
from edgemtl.nas.precision.outcome import make_result
from edgemtl.nas.precision.proposal import Proposal
from edgemtl.nas.precision.request import PrecisionRequest, terms_of
from edgemtl.nas.precision.setup import Setup, set_up
from edgemtl.nas.precision.state import Scored, begin, check_terms
from edgemtl.nas.search import storage_failures
from edgemtl.own import write_precision
from edgemtl.progress import Report, silent
from edgemtl.results import Result, read_result, write_result
from edgemtl.signals import deferred

__all__ = ["check_resumed", "search_precision"]


def check_resumed(out: Path, options: Mapping[str, Any]) -> None:
    """Refuse to resume the run in `out` with other options than it was begun with, before its net is opened.

    `options` are fields of a `PrecisionRequest`, budgets, floors, threads and tuning among them. A folder that holds no
    run is no obstacle; raises `UserError`, one line, where it holds a run of anything else.
    """
    check_terms(out, terms_of(options), resume=True)


def search_precision(request: PrecisionRequest, report: Report = silent) -> Result:
    """Choose channels and precisions of a net of one's own; writes and returns the result.

    Precisions of the whole net come first: of the engine and of each block. Where none of them keeps the budgets and
    the floors, channels are removed too, group by group, as few as each precision needs to keep the budgets. INT8 is
    calibrated on a third of the photos, all is chosen on another third, and reported on the last, or on the splits of a
    data set; scores are each task's own metrics where there are labels, else its agreement with the float net. The net
    in float and each uniform precision are always among the finalists, which are timed in turns on the target. Raises
    `UserError` for anything that cannot be met or understood. What was scored is kept after each engine: `resume` goes
    on from there.

    With a `strategy` all of that is what it begins with: it proposes channels of every group together with precisions,
    and its designs of the front are finalists too. A `storage` holds the study of many such runs then: each ends with
    a result of its own, from the evaluations of all.
    """
    with claim(request.out, "search"), storage_failures():
        return _search(request, report)


def _search(request: PrecisionRequest, report: Report) -> Result:
    started, search = time.monotonic(), search_for(request)
    request.tuning.check("net")
    check_terms(request.out, terms_of(vars(request)), request.resume)
    setup = set_up(request, report)
    search = search.of_run(setup.config)
    narrowing = search.narrowing(setup, report)
    begin(request.out, setup.config, request.resume)
    if search.has_ended():
        return read_result(request.out)
    scored = Scored.of(request.out)
    whole = Proposal(setup, scored, report)
    finalists, forms = search.finalists(whole, narrowing, scored, report)
    best = search.choose(finalists)
    result = make_result(request, search.info(finalists, scored, started), finalists, best, whole, report)
    with deferred():  # an older precision and a newer result would not go together
        _write_choice(request, setup, best.candidate, forms)
        write_result(request.out, result)
        search.mark_ended()
    return result


def _write_choice(request: PrecisionRequest, setup: Setup, best: Candidate, forms: NarrowForms | None) -> None:
    """Write the chosen precision, and the net that it is of where that is not the one that was given."""
    target, whole = setup.bench.target.traits.name, best.setup.whole
    if forms is not None and not whole:
        forms.write(request.out, best)
    write_precision(request.out, best.precision, best.setup.digest, target, "" if whole else setup.digest)
