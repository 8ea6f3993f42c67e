"""`edgemtl search`: from a supernet and budgets to a chosen design, measured and scored on its exported engine."""

from __future__ import annotations

import hashlib
import json
import math
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import optuna
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import TrialState

from edgemtl.data import Source, Split, open_source
from edgemtl.devices import HOST, load_device, resolve
from edgemtl.errors import UserError, unknown_name
from edgemtl.files.claim import claim
from edgemtl.files.seals import sha256
from edgemtl.files.share import find_shared
from edgemtl.models import Supernet, load_supernet
from edgemtl.nas.evaluation import (
    Evaluation,
    Evaluator,
    Finalist,
    FloorRow,
    Limit,
    PreflightRow,
    Problem,
    check_budgets,
    choose,
    evaluation_of,
    fast_enough,
    find_sensitivity,
    finished,
    front_of,
    keeps_all,
    limits_of,
    measure_finalists,
    measure_into_run,
    one_step_down,
    open_study,
    pick_architectures,
    preflight_budgets,
    preflight_floors,
    record,
    shrinkage_estimate,
    standard_error,
    timed_scopes,
)
from edgemtl.nas.runs import RunFolder, RunInfo, finalize_run, run_tasks
from edgemtl.nas.search.strategies.mask_learning import MASKS, MaskRun
from edgemtl.nas.search.strategies.masks import MaskDistribution, mask_space
from edgemtl.nas.search.strategies.registry import find_strategy
from edgemtl.nas.search.workers import begin, busy_elsewhere, end_abandoned, end_silent, working
from edgemtl.progress import Progress, Report, silent
from edgemtl.results import RESULT_FILE, Result, read_result
from edgemtl.runs import RunConfig
from edgemtl.signals import deferred
from edgemtl.spaces import Space, is_precision, load_space
from edgemtl.targets import find_target
from edgemtl.train import Recipe, fresh_supernet
from edgemtl.units import Budget, Floor, parse_budget, parse_floor, parse_preference

__all__ = ["Preflight", "SearchRequest", "prepare_images", "search"]

DEFAULT_TARGET = "onnxruntime"
FINALISTS = 3
FRONT_SIZE = 6
_REFINED = "evaluations_refined"
_WAIT_SECONDS = 1.0
_MASKS_SHARE = 0.5
"""Of the FLOPs of the whole net, what masks are learnt for where no budget says what all tasks together may take."""


@dataclass(frozen=True)
class SearchRequest:
    """What is asked of a search. Texts are as on the command line, so that a run says what the user said.

    `space` and `target` are names, `data` a source's name or path, `supernet` a file (none: the one that ships for
    this space and data). `evaluations` designs are measured in batches of `batch`. `storage` is an Optuna URL, for
    many workers; by default a journal in `out`. An empty `target` is the runtime that a budget names, else
    `onnxruntime`; `device` is the one that it is for. `threads` 0 leaves the number to the runtime. `steps` are those
    in which the strategy `masks` learns; it begins from scratch where no `supernet` is given.
    """

    out: Path
    budgets: tuple[str, ...] = ()
    floors: tuple[str, ...] = ()
    preference: str = ""
    space: str = "cnn"
    data: str = "scenes"
    size: tuple[int, int] | None = None
    target: str = ""
    device: str = HOST
    strategy: str = "linas"
    evaluations: int = 36
    batch: int = 12
    seed: int = 0
    supernet: Path | None = None
    storage: str | None = None
    threads: int = 0
    steps: int = MASKS.steps
    resume: bool = False
    command: str = "edgemtl search"


@dataclass(frozen=True)
class Preflight(Progress):
    """The table before the search: what three designs take of every limit, and lose of every floor.

    `floors` are None where the weights are still to be learnt; `together` names the design that is known to keep all.
    """

    rows: tuple[PreflightRow, ...] = ()
    floors: tuple[FloorRow, ...] | None = ()
    together: str = ""


@runtime_checkable
class _Preparable(Protocol):
    def prepare(self, split: Split, workers: int = 1, report: Report = silent) -> None: ...


def search(request: SearchRequest, report: Report = silent) -> Result:
    """Search a space under budgets and floors; writes and returns the run's result.

    Raises `UserError` for whatever cannot be met or understood, before anything is written, and where another process
    writes this run. On Ctrl-C the best design so far is scored and kept, a result is written, and `KeyboardInterrupt`
    goes on; a second Ctrl-C ends at once. `resume` continues the run from any moment, as if it had not been stopped.
    """
    with claim(request.out, "search"):
        try:
            return _search(request, report)
        except StorageInternalError as error:  # a database that is full, or cannot be reached any more
            reason = " ".join(str(error.__cause__ or error).split())[:200]
            raise UserError(f"the study in --storage failed ({reason}): mend it, then go on with --resume") from error


def _search(request: SearchRequest, report: Report) -> Result:
    started = time.monotonic()
    folder = RunFolder(request.out)
    setup = _set_up(request)
    folder.check(setup.config, request.resume)
    if _is_finished(request, setup):
        return read_result(request.out)
    prepare_images(setup.source, report)
    problem = _prepare(request, setup, folder, report)
    study = _study(request, setup.config)
    _finished(study, setup.space)  # a damaged study is told before anything is measured
    folder.create(setup.config)
    problem = _with_sensitivity(request, setup, problem, report)
    interrupted = _evaluate_all(request, problem, setup.evaluator, study, report)
    evaluations = _finished(study, setup.space)
    if not evaluations:
        raise KeyboardInterrupt
    if interrupted:
        report(_stopping(f"the best of {len(evaluations)} designs so far is refined, scored and written"))
    found, cut = _refine(problem, setup.evaluator, evaluations, 1 if interrupted else FINALISTS, report)
    if cut and interrupted:
        raise KeyboardInterrupt
    if cut:
        report(_stopping("what was refined is scored and written"))
    found = fast_enough(problem, found)
    best = choose(problem, found, shrinkage_estimate(problem, evaluations))
    front = [best, *(f for f in front_of(problem, found) if f is not best)][:FRONT_SIZE]
    info = RunInfo(request.command, request.seed, request.strategy, request.budgets, len(evaluations), started)
    base = setup.evaluator.candidate(setup.space.largest())
    result = finalize_run(folder, info, setup.evaluator, problem, base, front, report)
    if interrupted or cut:
        raise KeyboardInterrupt
    study.set_user_attr(_REFINED, len(evaluations))
    return result


def _prepare(request: SearchRequest, setup: _Setup, folder: RunFolder, report: Report) -> Problem:
    """The problem, its limits resolved, once the pre-flight table was told; where masks are learnt they are now."""
    rows = preflight_budgets(setup.space, setup.budgets, setup.evaluator)
    if request.strategy == "masks":
        report(Preflight("preflight", 1, 1, rows=tuple(rows), floors=None if setup.floors else ()))
        masks = _learn_masks(request, setup, limits_of(rows), folder, report)
        return replace(_problem(setup, rows), masks=masks)
    problem = _problem(setup, rows)
    floors = preflight_floors(problem, setup.evaluator)
    together = keeps_all(problem, rows, floors)
    report(Preflight("preflight", 1, 1, rows=tuple(rows), floors=tuple(floors), together=together))
    return problem


@dataclass(frozen=True)
class _Setup:
    """Everything that the request names, opened and checked."""

    space: Space
    source: Source
    evaluator: Evaluator
    budgets: tuple[Budget, ...]
    floors: tuple[Floor, ...]
    preference: Mapping[str, float]
    supernet: Path | None
    config: RunConfig


def _set_up(request: SearchRequest) -> _Setup:
    _check_numbers(request)
    find_strategy(request.strategy)
    budgets = tuple(parse_budget(text) for text in request.budgets)
    device = load_device(request.device)
    target = find_target(_target_name(request, budgets), device)
    source, space = _open(request)
    names = [task.name for task in source.tasks]
    for budget in budgets:
        if budget.task is not None and budget.task not in names:
            raise unknown_name(f"task in budget {budget.text!r}:", budget.task, names)
    floors = tuple(parse_floor(text, names) for text in request.floors)
    preference = parse_preference(request.preference, names) if request.preference else dict.fromkeys(names, 1.0)
    path = _supernet_path(request, source)
    supernet = Supernet.of(space) if path else fresh_supernet(space, request.seed)
    if path:
        load_supernet(supernet, path, space.fingerprint)
    measurer = check_budgets(budgets, target)
    searched = space.for_target(target.traits)
    evaluator = Evaluator(source, target, measurer, timed_scopes(budgets), request.threads, supernet=supernet)
    own: dict[str, Any] = {}
    if request.strategy == "masks":
        mask_space(searched)
        own = _recipe(request).as_json()
    config = RunConfig(
        space=request.space,
        fingerprint=space.fingerprint,
        size=space.size,
        data=request.data,
        data_fingerprint=source.fingerprint,
        tasks=run_tasks(source.tasks),
        target=target.traits.name,
        device=device,
        strategy=request.strategy,
        strategy_config=own,
        budgets=request.budgets,
        floors=request.floors,
        preference=preference,
        precisions={c.name: tuple(map(str, c.options)) for c in searched.choices if is_precision(c)},
        seed=request.seed,
        supernet_sha256=sha256(path) if path else None,
        threads=request.threads if evaluator.is_timed else None,
    )
    return _Setup(searched, source, evaluator, budgets, floors, preference, path, config)


def _check_numbers(request: SearchRequest) -> None:
    if request.evaluations < 2 or request.batch < 2:
        raise UserError(
            f"a search needs at least 2 evaluations in batches of 2, given: {request.evaluations} and {request.batch}"
        )
    if not 0 <= request.seed < 2**32:
        raise UserError(f"seed {request.seed} cannot be used: give a number from 0 to {2**32 - 1}")
    if request.steps < 1:
        raise UserError(f"{request.steps} steps given: strategy masks learns in 1 or more")
    if request.threads < 0:
        raise UserError(f"{request.threads} threads given: give 0 (the runtime's choice) or more")


def _target_name(request: SearchRequest, budgets: Sequence[Budget]) -> str:
    """The target of a search: what is asked for and the runtimes that its budgets name must be one."""
    for budget in budgets:
        resolve(budget)
    named = {budget.runtime for budget in budgets if budget.runtime} | ({request.target} if request.target else set())
    if len(named) > 1:
        raise UserError(
            f"budgets and target name the runtimes {' and '.join(sorted(named))}: a search serves one, "
            "start one for each"
        )
    return named.pop() if named else DEFAULT_TARGET


def _open(request: SearchRequest) -> tuple[Source, Space]:
    """The data set and the space for its tasks; where no size is given the space's own is the data's too."""
    source = open_source(request.data, request.size or (64, 64))
    space = load_space(request.space, source.tasks, request.size)
    return (source if source.size == space.size else open_source(request.data, space.size)), space


def _recipe(request: SearchRequest) -> Recipe:
    return replace(MASKS, steps=request.steps, seed=request.seed)


def _supernet_path(request: SearchRequest, source: Source) -> Path | None:
    """The weights to search with; none where the strategy trains its own."""
    if request.supernet is not None or request.strategy == "masks":
        return request.supernet
    shipped = find_shared("nas/supernets", f"{request.space}-{source.name}.safetensors")
    if shipped is None:
        raise UserError(
            f"no supernet ships for space {request.space} and data {source.name}: train one with "
            f"`edgemtl train --space {request.space} --data {request.data} --out runs/NAME`, "
            "then give --supernet runs/NAME/supernet.safetensors"
        )
    return shipped


def _stopping(what: str) -> Progress:
    return Progress("stopping", 0, 0, f"stopping: {what}; another Ctrl-C ends at once, with what was evaluated kept")


def _study(request: SearchRequest, config: RunConfig) -> optuna.Study:
    """The run's study; in a storage that many share its name tells what is asked, so that two searches never mix."""
    digest = hashlib.sha256(json.dumps(config.as_json(), sort_keys=True).encode()).hexdigest()[:12]
    name = f"{request.out.name}-{digest}" if request.storage else "search"
    return open_study(name, RunFolder(request.out).journal, request.storage)


def _finished(study: optuna.Study, space: Space) -> list[Evaluation]:
    """Every evaluated design once, in the order of evaluation."""
    found = [evaluation_of(trial, space) for trial in finished(study)]
    return list({each.design.key: each for each in found}.values())


def _is_finished(request: SearchRequest, setup: _Setup) -> bool:
    """Whether the result that is there speaks of every evaluation that is asked for."""
    if not (request.out / RESULT_FILE).is_file():
        return False
    study = _study(request, setup.config)
    distinct = len(_finished(study, setup.space))
    return len(finished(study)) >= request.evaluations and study.user_attrs.get(_REFINED) == distinct


def prepare_images(source: Source, report: Report) -> None:
    """Render or read ahead what every evaluation needs, with all cores."""
    if not isinstance(source, _Preparable):
        return
    splits: tuple[Split, ...] = ("calibration", "validation", "test")
    for split in splits:
        source.prepare(split, os.cpu_count() or 1, report)


def _problem(setup: _Setup, rows: Sequence[PreflightRow]) -> Problem:
    setup.evaluator.check_labels()
    baseline = setup.evaluator.simulated(setup.evaluator.candidate(setup.space.largest()))
    for task, scores in baseline.items():
        if not all(map(math.isfinite, scores.values())):
            raise UserError(f"the largest design has no finite score in task {task!r}: train the supernet again")
    noise = standard_error(setup.source.tasks, baseline, setup.evaluator.validation_images, setup.preference)
    is_timed = setup.evaluator.is_timed
    return Problem(setup.space, limits_of(rows), setup.floors, setup.preference, baseline, is_timed, noise=noise)


def _learn_masks(
    request: SearchRequest, setup: _Setup, limits: Sequence[Limit], folder: RunFolder, report: Report
) -> MaskDistribution:
    """Distributions of every task's masks, learnt together with the supernet's weights; from the checkpoint if any."""
    setup.evaluator.check_labels()
    folder.create(setup.config)
    masks = mask_space(setup.space)
    flops = {limit.budget.task or "": limit.value for limit in limits if limit.budget.quantity == "flops"}
    allowed = {"": _MASKS_SHARE * setup.space.largest().cost().flops} | flops
    recipe, supernet = _recipe(request), setup.evaluator.supernet
    run = MaskRun(setup.space, masks, setup.source, supernet, recipe, allowed, folder.path / "masks")
    return run.learn(report)


def _with_sensitivity(request: SearchRequest, setup: _Setup, problem: Problem, report: Report) -> Problem:
    """The problem with the supernet's sensitivity map, where the strategy predicts: beside the supernet, in the run, or
    measured now, where that is less work than the search itself or all that a strategy goes by.
    """
    if request.strategy not in ("linas", "preference") or setup.supernet is None:
        return problem
    config = setup.config
    cache_key = {"supernet_sha256": str(config.supernet_sha256), "data_fingerprint": config.data_fingerprint}
    found = find_sensitivity(setup.supernet, request.out, cache_key)
    needed = request.strategy == "preference" or len(one_step_down(problem.space)) <= request.evaluations
    if found is None and needed:
        evaluator = setup.evaluator
        found = measure_into_run(
            request.out,
            cache_key,
            problem.space,
            lambda design: evaluator.simulated(evaluator.candidate(design)),
            problem.baseline,
            report,
        )
    return replace(problem, sensitivity=found)


def _evaluate_all(
    request: SearchRequest, problem: Problem, evaluator: Evaluator, study: optuna.Study, report: Report
) -> bool:
    """Run trials until `evaluations` are complete; whether Ctrl-C cut it short."""
    study.sampler = find_strategy(request.strategy)(problem, request.seed, request.batch)
    worker = f"{socket.gethostname()}:{request.out.resolve()}"
    end_abandoned(study, worker if request.storage else None)
    try:
        while (done := len(finished(study))) < request.evaluations:
            if done + busy_elsewhere(study, worker) >= request.evaluations:
                report(Progress("search", done, request.evaluations, "other workers are at the last designs"))
                time.sleep(_WAIT_SECONDS)
                end_silent(study)
                continue
            evaluation = _evaluate_next(problem, evaluator, study, worker)
            report(Progress("search", done + 1, request.evaluations, _news(problem, evaluation)))
    except KeyboardInterrupt:
        return True
    return False


def _evaluate_next(problem: Problem, evaluator: Evaluator, study: optuna.Study, worker: str) -> Evaluation:
    """The evaluation of the next design, kept in the study; Ctrl-C is held back while the study is written."""
    with deferred():
        trial = begin(study, problem.space, worker)
    try:
        design = problem.space.design(trial.params)
        known = [each for each in finished(study) if each.user_attrs.get("key") == design.key]
        with working(study, trial):
            evaluation = evaluation_of(known[0], problem.space) if known else evaluator.evaluate(design)
    except KeyboardInterrupt:  # so that other workers need not wait before they take it over
        study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
        raise
    with deferred(), suppress(UpdateFinishedTrialError):  # after a long silence others have taken it over
        record(trial, evaluation)
        study.tell(trial, list(problem.objectives(evaluation)))
    return evaluation


def _news(problem: Problem, evaluation: Evaluation) -> str:
    minus_delta, second = problem.objectives(evaluation)
    cost = f"{second:.2f} ms" if problem.measures_latency else f"{second / 1e9:.2f} GFLOPs"
    broken = [check.name for check in problem.checks(evaluation) if not check.kept]
    verdict = f", breaks {' and '.join(broken)}" if broken else ""
    return f"delta_m {-100 * minus_delta:+.1f} %, {cost}{verdict}"


def _refine(
    problem: Problem, evaluator: Evaluator, evaluations: Sequence[Evaluation], count: int, report: Report
) -> tuple[list[Finalist], bool]:
    """The finalists of `count` architectures, and whether Ctrl-C cut this short: then those so far, at least one."""
    designs = pick_architectures(problem, evaluations, count, shrinkage_estimate(problem, evaluations))
    found: list[Finalist] = []
    try:
        for number, design in enumerate(designs):
            report(Progress("finalists", number, len(designs), f"precisions of {design.key}"))
            found += measure_finalists(problem, evaluator, design)
    except KeyboardInterrupt:
        as_evaluated = next(e for e in evaluations if e.design.key == designs[0].key)
        return found or [Finalist(evaluator.candidate(designs[0]), as_evaluated, 1.0)], True
    report(Progress("finalists", len(designs), len(designs)))
    return found, False
