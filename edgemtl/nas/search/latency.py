"""Latencies in a search: predicted by a table that fits, which is found, named or made; measured otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgemtl.errors import UnsupportedError, UserError
from edgemtl.files.disk import read_bytes, write_atomic
from edgemtl.nas.evaluation import Evaluation, Problem
from edgemtl.nas.latency import (
    DESIGNS,
    UNFINISHED,
    StoredTable,
    TableKey,
    key_of,
    make_table,
    misfits,
    read_table,
    table_file,
    table_files,
)
from edgemtl.nas.search.request import AUTO, MEASURED, PREDICTED
from edgemtl.nas.search.setup import Setup
from edgemtl.progress import Report, note

__all__ = ["TABLE_FILE", "check_latency", "tell_estimate", "with_latency_table"]

TABLE_FILE = "latency.json"
"""The table of a run, in its folder: it goes on with the one that it began with."""
ERROR_LIMIT = 0.10
"""The largest error on designs held out that is predicted with; engines are measured where it is larger."""
TABLE_LIMIT_BYTES = 2**26


def check_latency(setup: Setup) -> None:
    """`UserError` where latencies are to be measured or predicted and nothing times engines, or a table is unfit."""
    mode, untimed = setup.request.latency, setup.evaluator.measurer.untimed
    if mode == MEASURED and setup.evaluator.estimate is not None and untimed is not None:
        raise UserError(f"--latency {mode}: {untimed.reason}; leave it out for estimates, or {untimed.remedy}")
    if mode in (AUTO, MEASURED) or (setup.request.out / TABLE_FILE).is_file():
        return
    if untimed is not None:
        raise UserError(f"--latency {mode}: {untimed.reason}; leave it out, or {untimed.remedy}")
    if mode != PREDICTED and not Path(mode).is_file():
        raise UserError(f"--latency {mode}: no such file; give {AUTO}, {MEASURED}, {PREDICTED}, or a latency table")
    another = f"give another, or --latency {PREDICTED}, which makes one"
    if mode != PREDICTED and (differences := misfits(Path(mode), _key(setup), setup.evaluator.scopes, another)):
        raise UserError(f"latency table {mode} does not fit this search: {'; '.join(differences)}; {another}")


def tell_estimate(setup: Setup, report: Report) -> None:
    """A line that says that latencies are estimates, and where they follow from; nothing where they are none."""
    if (estimate := setup.evaluator.estimate) is not None:
        note(report, f"latencies are estimates, nothing is timed: {estimate.words}")


def with_latency_table(setup: Setup, problem: Problem, before: Sequence[Evaluation], report: Report) -> Problem:
    """The problem with the table that predicts its latencies, if there is to be one; a line says which, or why not.

    Where all that was evaluated `before` was measured, the search goes on without, unless it has a table of its own.
    """
    if (estimate := setup.evaluator.estimate) is not None:
        return replace(problem, known_from={**problem.known_from, "latency": f"estimated by the {estimate.words}"})
    if not setup.evaluator.is_timed:
        return problem
    begun = bool(before) and not any(each.latency_error for each in before)
    stored = None if setup.request.latency == MEASURED else _table(setup, begun, report)
    if stored is None:
        return replace(problem, known_from={**problem.known_from, "latency of candidates": "measured now"})
    unsure = [scope or "all tasks" for scope in setup.evaluator.scopes if stored.table.errors[scope] > ERROR_LIMIT]
    if unsure:
        limit = f"{ERROR_LIMIT:.0%} is allowed, of {' and '.join(unsure)} it is more"
        note(report, f"{stored.words}; {limit}: engines are measured. Deleted, the table is made again")
        return replace(problem, known_from={**problem.known_from, "latency of candidates": "measured now"})
    note(report, f"{stored.words}; candidates are predicted, close calls and finalists measured")
    known_from = {**problem.known_from, "latency of candidates": f"predicted by {stored.words}"}
    return replace(problem, latency=stored.table, known_from=known_from)


def _key(setup: Setup) -> TableKey:
    evaluator = setup.evaluator
    return key_of(setup.space, evaluator.target, evaluator.measurer.kind, setup.request.threads)


def _table(setup: Setup, begun: bool, report: Report) -> StoredTable | None:
    """The run's own table, the named one, one that lies beside the supernet or in the cache, or one made now."""
    request, key, own = setup.request, _key(setup), setup.request.out / TABLE_FILE
    shared = table_files(setup.weights, key)
    files = [own, *(shared if request.latency in (AUTO, PREDICTED) else [Path(request.latency)])]
    stale = list[str]()
    for file in files[:1] if begun else files:
        if file.is_file():
            try:
                if not (differences := misfits(file, key, setup.evaluator.scopes)):
                    return _kept(read_table(file, setup.space), own)
            except UserError as error:
                if file not in shared:
                    raise
                stale.append(str(error))  # nobody asked for this one
                continue
            if differences != [UNFINISHED]:
                stale.append(f"latency table {file} does not fit: {'; '.join(differences)}")
    worthwhile = request.latency == AUTO and (own.is_file() or request.evaluations >= DESIGNS)
    makes = not begun and (request.latency == PREDICTED or worthwhile)
    if stale:
        note(report, f"{stale[0]}; {'it is made anew' if makes else 'engines are measured'}")
    return _made(setup, key, own, shared, report) if makes else None


def _made(setup: Setup, key: TableKey, own: Path, files: Sequence[Path], report: Report) -> StoredTable | None:
    """A new table, in the run's folder from its beginning, and then where other searches look for it."""
    try:
        make_table(own, key, setup.space, setup.evaluator, report)
    except UnsupportedError as error:
        if setup.request.latency == PREDICTED:
            raise
        note(report, f"{error}; engines are measured")
        return None
    file = table_file(files)
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(file, read_bytes(own, "latency table", TABLE_LIMIT_BYTES))
    return read_table(file, setup.space)


def _kept(stored: StoredTable, own: Path) -> StoredTable:
    """The table, a copy of it in the run's folder."""
    if stored.file != own:
        write_atomic(own, read_bytes(stored.file, "latency table", TABLE_LIMIT_BYTES))
    return stored
