"""Pruning a user's own torch module: `edgemtl prune package.module:function`."""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from edgemtl.data import Source, Split, cache_root, open_source
from edgemtl.environment import environment
from edgemtl.errors import UserError, naming
from edgemtl.files.claim import LOCK_FILE, claim
from edgemtl.files.disk import read_json, write_atomic, write_json
from edgemtl.files.names import check_name
from edgemtl.files.paths import check_folder
from edgemtl.files.seals import sealed, sha256
from edgemtl.models import TaskNet
from edgemtl.nas.evaluation import (
    BATCH,
    TEST_IMAGES,
    VALIDATION_IMAGES,
    Limit,
    NetEvaluator,
    PreparedNet,
    check_floor,
    prepare_images,
    timed_scopes,
)
from edgemtl.nas.prune.apply import PRUNING_FILE, PRUNING_SCHEMA, WEIGHTS_FILE, kept_json, weights_bytes
from edgemtl.nas.prune.criterion import JUDGED_IMAGES, RECALIBRATION_IMAGES, LossCriterion
from edgemtl.nas.prune.cut import places_kept
from edgemtl.nas.prune.decide import (
    Kept,
    Prunable,
    check_feasible,
    decide,
    group_rows,
    resolve_limits,
    weights_of,
)
from edgemtl.nas.prune.fit import Fit
from edgemtl.nas.prune.map import PruneMap, first_channels
from edgemtl.nas.prune.module_groups import module_groups
from edgemtl.nas.prune.module_net import ModuleNet, load_module
from edgemtl.nas.prune.trials import Trials
from edgemtl.progress import Progress, Report, silent
from edgemtl.results import RESULT_FILE, Entry, LimitCheck, PathCost, Result, read_result, write_result
from edgemtl.targets import find_target, measurer_of
from edgemtl.tasks import delta_m, relative_change
from edgemtl.train import batches_of, evaluate
from edgemtl.units import Floor

__all__ = ["ENGINE_FOLDER", "ModuleRequest", "prune_module"]

MODULE_FILE = "module.json"
ENGINE_FOLDER = "engine"
SCHEMA = "edgemtl.pruned-module/1"
TARGET = "onnxruntime"
SIZE = (192, 256)
_FLOAT = {"engine": "fp32"}

Timed = Callable[[TaskNet], dict[str, float]]
_SCORED: tuple[Split, ...] = ("validation", "test")


@dataclass(frozen=True)
class ModuleRequest:
    """What to prune, on which data, and under what.

    `module` is `package.module:function`, `data` a source's name or path, read at `size` (H, W). `budgets`, `floors`,
    `fast` and `resume` are those of a `PruneRequest`; percentages and floors refer to the module as it is given.
    """

    module: str
    out: Path
    data: str
    budgets: tuple[str, ...]
    floors: tuple[str, ...] = ()
    size: tuple[int, int] = SIZE
    fast: bool = False
    resume: bool = False
    command: str = "edgemtl prune"


@dataclass(frozen=True)
class _Scored:
    """A module's metrics by split and task, and its latency by scope (empty where it cannot be exported)."""

    metrics: Mapping[Split, Mapping[str, Mapping[str, float]]]
    ms: Mapping[str, float]


def prune_module(request: ModuleRequest, report: Report = silent) -> Result:
    """Remove channels of a user's own module until it keeps the budgets, every task watched, as `prune` does for a run.

    Writes `pruning.json` (what `apply_pruning` reads), `weights.safetensors`, `result.json`, and `engine/` for ONNX
    Runtime where the module can be exported. Raises `UserError` for a module that is not what `load_module` wants, for
    budgets that cannot be met, saying what can, and where a task has no label among the images that decide or score.
    """
    with claim(request.out, "prune"):
        return _prune(request, report)


def _prune(request: ModuleRequest, report: Report) -> Result:
    started = time.monotonic()
    source = open_source(request.data, request.size)
    _check_folder(request, {})
    net, dimensions = load_module(request.module, source.tasks, source.size)
    subject, whole = _subject(request, net, dimensions, source)
    limits, floors = resolve_limits(subject, request.budgets, request.floors, TARGET)
    problem = _export_problem(net)
    if problem and (timed := [limit.budget for limit in limits if not limit.exact]):
        raise UserError(f"budget {timed[0].text!r}: the module cannot be exported ({problem}): give FLOPs or MB")
    prepare_images(source, report)
    subject.criterion.check_labels()
    config = {"budgets": list(request.budgets), "floors": list(request.floors), "fast": request.fast}
    config |= {"data": request.data, **subject.cache_key}
    _check_folder(request, config)
    if (request.out / RESULT_FILE).is_file():
        return read_result(request.out)
    target = find_target(TARGET)
    scopes = timed_scopes([limit.budget for limit in limits])
    evaluator = NetEvaluator(source, target, measurer_of(target), scopes)
    timed_now = partial(_time, evaluator)
    given = _Scored({split: _scores(net, source, split) for split in _SCORED}, {} if problem else timed_now(net))
    limits = tuple(e if e.exact else Limit(e.budget, e.budget.limit(given.ms[e.budget.task or ""])) for e in limits)
    timing = partial(_timed, subject, timed_now)
    check_feasible(subject, limits, timing, "prune a smaller module")
    write_json(request.out / MODULE_FILE, {"schema": SCHEMA, **config})
    trials = Trials(request.out / "trials.jsonl")
    weights = weights_of(dict.fromkeys((task.name for task in source.tasks), 1.0), floors)
    known, fit = decide(subject, limits, weights, request.fast, trials, timing, report)
    narrow = subject.net(known, fit.kept)
    after = subject.criterion.losses(narrow, list(known.base)).losses
    losses = {task: {"before": loss, "after": after[task]} for task, loss in known.base.items()}
    said = {"mode": "fast" if request.fast else "sequential", "calibration_losses": losses, "not_exported": problem}
    _write(request, subject, known, fit, narrow, {**said, "whole": whole})
    report(Progress("score", 0, 1, "the pruned module"))
    pruned = _Scored({split: _scores(narrow, source, split) for split in _SCORED}, {} if problem else timed_now(narrow))
    report(Progress("score", 1, 1))
    tried = len(trials) or sum(len(curve.rises) for curve in known.curves.values())
    best, base = (
        _entry(subject, kept, scored, given, _checks(subject, limits, floors, kept, scored, given), evaluator)
        for kept, scored in ((fit.kept, pruned), ({}, given))
    )
    result = Result(
        command=request.command,
        seed=None,
        data={"name": source.name, "fingerprint": source.fingerprint, "scored_on": "test images"},
        space=request.module,
        strategy="prune",
        budgets=request.budgets,
        feasible=not best.broken,
        best=best,
        front=(best, base),
        evaluations=tried,
        seconds=time.monotonic() - started,
        environment=environment(),
        floors=tuple(floor.text for floor in floors),
        preference=dict.fromkeys((task.name for task in source.tasks), 1.0),
    )
    write_result(request.out, result)
    return result


def _check_folder(request: ModuleRequest, config: Mapping[str, Any]) -> None:
    """`UserError` where this cannot begin in the folder, or not go on there."""
    out, file = request.out, request.out / MODULE_FILE
    check_name(out.absolute().name, "folder")
    if not file.is_file():
        if out.exists() and not (out.is_dir() and {*out.iterdir()} <= {out / LOCK_FILE}):
            raise UserError(f"{out} is not empty and holds no pruned module: choose another --out")
        return
    check_folder(out, "pruned module")
    if not request.resume:
        raise UserError(f"{out} exists: go on with --resume, or choose another --out")
    if config:
        stored, wanted = read_json(file, "pruned module"), json.loads(json.dumps({"schema": SCHEMA, **config}))
        keys = {*stored, *wanted} if isinstance(stored, dict) else {"schema"}
        changed = sorted(key for key in keys if not isinstance(stored, dict) or stored.get(key) != wanted.get(key))
        if changed:
            raise UserError(
                f"{out} was started with another {', '.join(changed)}: resume it with the same, or choose another --out"
            )


def _subject(
    request: ModuleRequest, net: ModuleNet, dimensions: Mapping[str, int | None], source: Source
) -> tuple[Prunable, dict[str, str]]:
    """The module as something that can be pruned, and why some of its layers stay whole."""
    criterion = LossCriterion(source)
    with naming(request.module):
        groups, whole, costs = module_groups(net, dimensions, criterion.recalibration[:1])
    multiple = find_target(TARGET).traits.channel_multiple
    if not any(group.size > multiple for group in groups):
        reasons = "; ".join(f"{name}: {reason}" for name, reason in list(whole.items())[:3]) or "it has no such layer"
        raise UserError(f"{request.module}: no channels of the module can be pruned ({reasons})")
    cache_key = {
        "module": request.module,
        "layers_sha256": hashlib.sha256(_layers(net.module).encode()).hexdigest(),
        "weights_sha256": hashlib.sha256(weights_bytes(net.module)).hexdigest(),
        "data_fingerprint": source.fingerprint,
        "size": list(source.size),
        "images": [RECALIBRATION_IMAGES, JUDGED_IMAGES],
        "multiple": multiple,
    }
    name = hashlib.sha256(json.dumps(cache_key, sort_keys=True).encode()).hexdigest()[:16]
    map_file = cache_root() / "prune_maps" / f"{name}.json"
    return Prunable(net, groups, criterion, multiple, costs.cost, _key, map_file, cache_key), whole


def _layers(module: nn.Module) -> str:
    return "\n".join(f"{name} {type(part).__name__} {part.extra_repr()}" for name, part in module.named_modules())


def _key(kept: Kept) -> str:
    return hashlib.sha256(json.dumps(dict(kept)).encode()).hexdigest()[:12]


def _export_problem(net: ModuleNet) -> str:
    """Why the module cannot be exported; empty where it can."""
    with tempfile.TemporaryDirectory(prefix="edgemtl-") as folder:
        try:
            find_target(TARGET).build(net, _FLOAT, None, Path(folder))
        except Exception as error:  # symbolic tracing runs the user's own code
            return " ".join(str(error).split())[:300] or type(error).__name__
    return ""


def _time(evaluator: NetEvaluator, net: TaskNet) -> dict[str, float]:
    """Median latency in ms of the net's engine, by scope."""
    return evaluator.time(PreparedNet(net, _FLOAT))


def _timed(subject: Prunable, timed: Timed, known: PruneMap, kept: Kept) -> dict[str, float]:
    return timed(subject.net(known, kept))


def _scores(net: TaskNet, source: Source, split: Split) -> dict[str, dict[str, float]]:
    """Metrics of the module's outputs; `UserError` where one is not finite, or a task has no valid label."""
    least, most = VALIDATION_IMAGES if split == "validation" else TEST_IMAGES
    limit = least if any(task.dense for task in source.tasks) else most
    found = evaluate(net, source.tasks, batches_of(source.split(split), BATCH, limit))
    for task, scores in found.items():
        if not all(map(math.isfinite, scores.values())):
            raise UserError(
                f"the module has no finite score in task {task!r} on {split} images: its outputs are NaN or infinite"
            )
    return found


def _write(
    request: ModuleRequest, subject: Prunable, known: PruneMap, fit: Fit, narrow: TaskNet, said: Mapping[str, Any]
) -> None:
    """The pruned module: what was cut, its weights, and its engine."""
    fewer = {group.name: fit.kept[group.name] for group in subject.groups if fit.kept[group.name] < group.size}
    places = places_kept(subject.whole, subject.groups, first_channels(known.orders, fewer))
    write_atomic(request.out / WEIGHTS_FILE, weights_bytes(narrow.get_submodule("module")))
    if not said["not_exported"]:
        find_target(TARGET).build(narrow, _FLOAT, None, request.out / ENGINE_FOLDER)
    content = {"schema": PRUNING_SCHEMA, "module": request.module, "tolerance": fit.tolerance, **said}
    rows: dict[str, Any] = {"groups": group_rows(subject.groups, fit), "kept": kept_json(places)}
    rows["weights_sha256"] = sha256(request.out / WEIGHTS_FILE)
    write_json(request.out / PRUNING_FILE, sealed({**content, **rows}))


def _checks(
    subject: Prunable, limits: Sequence[Limit], floors: Sequence[Floor], kept: Kept, scored: _Scored, given: _Scored
) -> tuple[LimitCheck, ...]:
    """Every budget and, on validation images, every floor against the module with `kept` channels."""
    after, before = scored.metrics["validation"], given.metrics["validation"]
    changes = {t.name: relative_change(t, after[t.name], before[t.name]) for t in subject.criterion.source.tasks}
    takes = [subject.takes(each.budget, kept) if each.exact else scored.ms[each.budget.task or ""] for each in limits]
    budgets = (limit.check(value) for limit, value in zip(limits, takes, strict=True))
    return (*budgets, *(check_floor(floor, changes[floor.task]) for floor in floors))


def _entry(
    subject: Prunable,
    kept: Kept,
    scored: _Scored,
    given: _Scored,
    limits: tuple[LimitCheck, ...],
    evaluator: NetEvaluator,
) -> Entry:
    tasks, cost, metrics = subject.criterion.source.tasks, subject.cost(kept, None), scored.metrics["test"]
    paths = {task.name: subject.cost(kept, task.name) for task in tasks}
    return Entry(
        design={f"{name}.channels"[-200:]: count for name, count in kept.items()},
        flops=cost.flops,
        macs=cost.flops // 2,
        params=cost.params,
        bytes=cost.weight_bytes,
        latency_ms=evaluator.latency(scored.ms.get("")),
        metrics={task: dict(scores) for task, scores in metrics.items()},
        delta_m=delta_m(tasks, metrics, given.metrics["test"]),
        paths={task: PathCost(flops=each.flops, params=each.params) for task, each in paths.items()},
        feasible=all(check.kept for check in limits),
        kind="candidate" if kept else "baseline",
        name="best" if kept else "baseline",
        limits=limits,
    )
