"""Further processes of a search on this machine: they evaluate designs of its study, and share out its cores."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Protocol

import optuna
import torch

from edgemtl.errors import UserError
from edgemtl.nas.evaluation import Limit, Problem, Sensitivity, Turns
from edgemtl.nas.latency import read_table
from edgemtl.nas.search.latency import TABLE_FILE
from edgemtl.nas.search.loop import Worker, evaluate_all, worker_name
from edgemtl.nas.search.problem import prepare_again
from edgemtl.nas.search.request import SearchRequest
from edgemtl.nas.search.setup import Setup, set_up
from edgemtl.nas.search.study import study_of
from edgemtl.nas.search.workers import end_abandoned
from edgemtl.progress import Report, note, silent
from edgemtl.signals import end_with_parent

__all__ = ["HelperWork", "run_helpers", "space_work"]


class HelperWork(Protocol):
    """The part of a helper, which can be pickled: it sets up for itself what the search of its run has."""

    def evaluate(self, name: str, turns_folder: Path) -> None:
        """Evaluate designs of the run's study as the worker of this name, in turns by the locks of a folder."""
        ...


@contextmanager
def run_helpers(
    run: Path, workers: int, work: HelperWork, turns: Turns, study: optuna.Study, report: Report
) -> Iterator[Callable[[], None]]:
    """Run all `workers` of a run but this process while the block evaluates here; yields a check of them.

    They leave Ctrl-C to this process and end with it, however it ends. The check reports one that ended before its
    time, and gives its design back at once; the others go on. Until then `turns`, this process's own, are theirs too.
    """
    if workers == 1:
        yield lambda: None
        return
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory(prefix="edgemtl-") as folder:
        turns.folder = Path(folder)
        own = max(1, threads // workers)
        context = multiprocessing.get_context("spawn")
        processes: dict[str, BaseProcess] = {}
        try:
            for number in range(1, workers):
                name = f"{worker_name(run)}#{number}"
                given = (work, name, turns.folder, own, os.getpid())
                helper = context.Process(target=_help, args=given, daemon=True)
                helper.start()
                processes[name] = helper
            torch.set_num_threads(own)
            yield lambda: _check(processes, study, report)
        finally:
            torch.set_num_threads(threads)
            for process in processes.values():
                process.kill()
                process.join()
            turns.folder = None


def _check(processes: dict[str, BaseProcess], study: optuna.Study, report: Report) -> None:
    for name, process in [*processes.items()]:
        if process.exitcode:
            del processes[name]
            end_abandoned(study, name)
            how = f"signal {-process.exitcode}" if process.exitcode < 0 else f"status {process.exitcode}"
            note(report, f"a worker ended ({how}): {1 + len(processes)} left, which do its design again")


def _help(work: HelperWork, name: str, turns_folder: Path, threads: int, parent: int) -> None:
    """Evaluate designs in a process of its own."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent(parent)
    torch.set_num_threads(threads)
    try:
        work.evaluate(name, turns_folder)
    except UserError as error:
        raise SystemExit(str(error)) from error


def space_work(setup: Setup, problem: Problem, evaluations: int) -> HelperWork:
    """The part of a helper in the search of a space."""
    known = (problem.limits, problem.baseline, problem.sensitivity, problem.noise, problem.latency is not None)
    return _SpaceWork(setup.request, *known, evaluations)


@dataclass(frozen=True)
class _SpaceWork:
    """A request, and what of its problem was measured, so that all have the same."""

    request: SearchRequest
    limits: tuple[Limit, ...]
    baseline: Mapping[str, Mapping[str, float]]
    sensitivity: Sensitivity | None
    noise: float
    predicts: bool
    evaluations: int

    def evaluate(self, name: str, turns_folder: Path) -> None:
        """See `HelperWork`."""
        setup = set_up(self.request)
        setup.evaluator.turns.folder = turns_folder
        study, problem = study_of(setup), _problem(setup, self)
        study.sampler = prepare_again(setup, problem).sampler(problem, self.request.seed, self.request.batch)
        evaluate_all(self.evaluations, problem, setup.evaluator, study, Worker(name, True), silent)


def _problem(setup: Setup, work: _SpaceWork) -> Problem:
    evaluator = setup.evaluator
    largest = evaluator.candidate(setup.space.largest()) if setup.floors else None
    return Problem(
        setup.space,
        work.limits,
        setup.floors,
        setup.preference,
        work.baseline,
        evaluator.is_timed,
        work.sensitivity,
        work.noise,
        evaluator.watch(largest, work.baseline, setup.floors) if largest else None,
        read_table(setup.request.out / TABLE_FILE, setup.space).table if work.predicts else None,
        objectives_given=setup.objectives,
    )
