"""`edgemtl search`: from a supernet and budgets to a chosen design, measured and scored on its exported engine."""

from __future__ import annotations

import time
from dataclasses import replace

import optuna

from edgemtl.files.claim import claim
from edgemtl.nas.evaluation import Problem, prepare_images
from edgemtl.nas.runs import RunFolder, RunInfo, finalize_run, write_measurements
from edgemtl.nas.search.again import choose_again, known_in, origin_of, tell_elsewhere
from edgemtl.nas.search.finetuning import tune_finalists
from edgemtl.nas.search.helpers import run_helpers, space_work
from edgemtl.nas.search.latency import check_latency, tell_estimate, with_latency_table
from edgemtl.nas.search.loop import Worker, evaluate_all, worker_name
from edgemtl.nas.search.problem import look_ahead, prepare_strategy
from edgemtl.nas.search.refinement import choose_front, finalists_of, refine, with_corrections
from edgemtl.nas.search.request import SearchRequest
from edgemtl.nas.search.setup import Setup, set_up, tell_left_out
from edgemtl.nas.search.shortlist import read_shortlist, write_shortlist
from edgemtl.nas.search.study import (
    check_shared,
    evaluations_in,
    has_ended,
    run_study,
    storage_failures,
    study_of,
    take_known,
    wanted_in,
)
from edgemtl.nas.search.workers import end_abandoned
from edgemtl.progress import Progress, Report, silent
from edgemtl.results import Result, read_result
from edgemtl.runs import CONFIG_FILE

__all__ = ["search"]


def search(request: SearchRequest, report: Report = silent) -> Result:
    """Search a space under budgets and floors; writes and returns the run's result.

    Raises `UserError` for anything that cannot be met or understood, before anything is written, and where another
    process writes this run. On Ctrl-C the best design so far is scored and kept, a result is written, and
    `KeyboardInterrupt` goes on; a second Ctrl-C ends at once. `resume` continues the run from any moment, as if it had
    not been stopped.
    """
    with claim(request.out, "search"), storage_failures():
        return _search(request, report)


def _search(request: SearchRequest, report: Report) -> Result:
    started = time.monotonic()
    folder, setup = RunFolder(request.out), set_up(request)
    folder.check(setup.config, request.resume)
    check_shared(setup)
    if has_ended(setup):
        return read_result(request.out)
    check_latency(setup)
    prepare_images(setup.source, report)
    known = known_in(setup) if request.origin else None
    if known:
        tell_elsewhere(setup, known, report)
    if known and not request.evaluations:
        return choose_again(setup, known, started, report)
    tell_left_out(setup, report)
    tell_estimate(setup, report)
    rows, foreseen = look_ahead(setup, report)
    study = study_of(setup)
    before = evaluations_in(study, setup.space)  # a damaged study is reported before anything is measured
    begun = bool(before) and (request.out / CONFIG_FILE).is_file()
    folder.create(setup.config)
    prepared, problem = prepare_strategy(setup, rows, foreseen, begun, report)
    problem = with_latency_table(setup, problem, before, report)
    study.sampler = prepared.sampler(problem, request.seed, request.batch)
    if known:
        take_known(study, problem, [each.evaluation for each in known.measurements.measured])
    interrupted = _evaluate(setup, problem, study, report)
    origin = origin_of(known, f"{request.evaluations} more were measured") if known else None
    info = RunInfo(
        request.command,
        request.seed,
        request.strategy,
        request.budgets,
        0,
        started,
        origin=origin,
        objectives=request.objectives,
    )
    return _finalize(setup, problem, study, interrupted, info, report)


def _evaluate(setup: Setup, problem: Problem, study: optuna.Study, report: Report) -> bool:
    """Evaluate what is wanted, by as many processes as are; whether Ctrl-C cut it short."""
    request = setup.request
    wanted = wanted_in(study, request.evaluations)
    name, shares = worker_name(request.out), request.storage is not None
    end_abandoned(study, name if shares else None)
    work = space_work(setup, problem, wanted)
    with run_helpers(request.out, request.workers, work, setup.evaluator.turns, study, report) as check:
        worker = Worker(name, shares or request.workers > 1, check)
        return evaluate_all(wanted, problem, setup.evaluator, study, worker, report)


def _finalize(
    setup: Setup, problem: Problem, study: optuna.Study, interrupted: bool, info: RunInfo, report: Report
) -> Result:
    """Refine, choose and score what was evaluated, and write the result; after Ctrl-C, less of it, and end so."""
    request, evaluator, evaluations = setup.request, setup.evaluator, evaluations_in(study, setup.space)
    if not evaluations:
        raise KeyboardInterrupt
    if interrupted:
        report(_stopping(f"the best of {len(evaluations)} designs so far is refined, scored and written"))
    count = 1 if interrupted else request.finalists
    state = {"evaluations": len(evaluations), "architectures": count}
    measured = read_shortlist(request.out, state, problem.space)
    if measured is None:
        refined, cut_short = refine(problem, evaluator, evaluations, count, report)
    else:
        refined, cut_short = finalists_of(evaluator, measured), False
    if cut_short and interrupted:
        raise KeyboardInterrupt
    write_measurements(request.out, problem.baseline, evaluations, refined)
    baseline = evaluator.candidate(setup.space.largest())
    if request.finetune and not interrupted and not cut_short:
        write_shortlist(request.out, state, refined)
        RunFolder(request.out).save("baseline", baseline)
        refined, cut_short = tune_finalists(request, problem, evaluator, refined, report)
    if cut_short:
        report(_stopping("what was refined is scored and written"))
    front = choose_front(problem, refined, evaluations, request.front_size)
    front = [with_corrections(problem, evaluator, each) for each in front]
    info = replace(
        info,
        evaluations=len(evaluations),
        early_stops=problem.early_stops(evaluations),
        known_from=problem.known_from,
    )
    result = finalize_run(RunFolder(request.out), info, evaluator, problem, baseline, front, report)
    if interrupted or cut_short:
        raise KeyboardInterrupt
    run_study(setup).mark_refined(study, len(evaluations))
    return result


def _stopping(what: str) -> Progress:
    return Progress("stopping", 0, 0, f"{what}; another Ctrl-C ends at once, with what was evaluated kept")
