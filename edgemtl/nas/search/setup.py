"""Setting up a search: everything that the request names is opened and checked; nothing is written yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgemtl.data import Source, open_source
from edgemtl.devices import Device, device_of
from edgemtl.errors import UserError, unknown_name
from edgemtl.files.seals import sha256
from edgemtl.files.share import find_shared
from edgemtl.models import Supernet, load_supernet
from edgemtl.nas.evaluation import Evaluator, check_budgets, check_objectives, timed_scopes
from edgemtl.nas.latency import estimate_for
from edgemtl.nas.runs import run_tasks
from edgemtl.nas.search.finetuning import check_train_labels, finetune_config
from edgemtl.nas.search.request import SearchRequest, check_numbers
from edgemtl.nas.search.strategies import Strategy, make_strategy
from edgemtl.progress import Report, note
from edgemtl.runs import RunConfig
from edgemtl.spaces import Space, is_precision, load_space
from edgemtl.targets import ExportTarget, find_target, target_of, within_budgets
from edgemtl.tasks import Floor, parse_floor
from edgemtl.train import fresh_supernet
from edgemtl.units import Budget, parse_budget, parse_preference

__all__ = ["Setup", "set_up", "tell_left_out"]

DEFAULT_TARGET = "onnxruntime"


@dataclass(frozen=True)
class Setup:
    """Everything that a request names. `weights` is the supernet's file, None where its weights are still random.

    `space` is restricted to what the target honours, `budgets` have the device's own limits too; `config` is what a run
    must be resumed with.
    """

    request: SearchRequest
    strategy: Strategy
    space: Space
    source: Source
    supernet: Supernet
    weights: Path | None
    evaluator: Evaluator
    budgets: tuple[Budget, ...]
    floors: tuple[Floor, ...]
    preference: Mapping[str, float]
    objectives: tuple[str, ...]
    config: RunConfig


def set_up(request: SearchRequest) -> Setup:
    """Open and check everything; raises `UserError` for anything that cannot be understood, used or timed here."""
    check_numbers(request)
    strategy = make_strategy(request.strategy, request.settings)
    budgets = tuple(parse_budget(text) for text in request.budgets)
    device = device_of(budgets, request.device)
    target = within_budgets(find_target(_target_name(request, budgets, device), device), request.budgets)
    budgets = (*budgets, *_device_limits(budgets, target))
    source, space = _open(request)
    names = [task.name for task in source.tasks]
    _check_tasks(budgets, names)
    floors = tuple(parse_floor(text, source.tasks) for text in request.floors)
    preference = parse_preference(request.preference, names) if request.preference else dict.fromkeys(names, 1.0)
    weights = _weights(request, strategy, source)
    supernet = _supernet(space, weights, request.seed)
    estimate = estimate_for(target, budgets, request.objectives)
    measurer = check_budgets(budgets, target, estimated=estimate is not None)
    if request.finetune:
        check_train_labels(source)
    searched = space.for_target(target.traits)
    scopes = timed_scopes(budgets)
    evaluator = Evaluator(source, target, measurer, scopes, request.threads, estimate, supernet=supernet)
    objectives = check_objectives(request.objectives, names, evaluator.is_timed)
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
        strategy_config=strategy.config(searched),
        budgets=request.budgets,
        floors=request.floors,
        preference=preference,
        objectives=objectives,
        precisions={c.name: tuple(map(str, c.options)) for c in searched.choices if is_precision(c)},
        seed=request.seed,
        supernet_sha256=sha256(weights) if weights else None,
        supernet=None if request.supernet is None else str(request.supernet),
        threads=request.threads if evaluator.is_timed else None,
        finetune=finetune_config(request, source),
        latency=request.latency if evaluator.is_timed else None,
    )
    return Setup(
        request,
        strategy,
        searched,
        source,
        supernet,
        weights,
        evaluator,
        budgets,
        floors,
        preference,
        objectives,
        config,
    )


def _supernet(space: Space, weights: Path | None, seed: int) -> Supernet:
    """The shared weights of a file; without one those that training begins with."""
    if weights is None:
        return fresh_supernet(space, seed)
    supernet = Supernet.of(space)
    load_supernet(supernet, weights, space.fingerprint)
    return supernet


def _device_limits(budgets: Sequence[Budget], target: ExportTarget) -> Iterator[Budget]:
    """Limits that the device sets by itself, but for those that a budget of the same quantity is as strict as."""
    for limit in target.traits.limits:
        own = (each for each in budgets if each.quantity == limit.quantity and not each.relative and each.task is None)
        if all(each.value > limit.value for each in own):
            yield limit


def _check_tasks(budgets: Sequence[Budget], names: Sequence[str]) -> None:
    """`UserError` where a budget is of a task that the data set does not have."""
    for budget in budgets:
        if budget.task is not None and budget.task not in names:
            raise unknown_name(f"task in budget {budget.text!r}:", budget.task, names)


def _target_name(request: SearchRequest, budgets: Sequence[Budget], device: Device) -> str:
    """The target of a search: the requested one and the runtimes of its budgets must be the same.

    Where none is named it is the target of the first of the device's runtimes that has one.
    """
    named = {budget.runtime for budget in budgets if budget.runtime} | ({request.target} if request.target else set())
    if len(named) > 1:
        raise UserError(
            f"budgets and target name the runtimes {' and '.join(sorted(named))}: a search serves one, "
            "start one for each"
        )
    if named:
        return named.pop()
    return next((name for each in device.runtimes if (name := target_of(each.name))), DEFAULT_TARGET)


def tell_left_out(setup: Setup, report: Report) -> None:
    """A line on the options of the space whose blocks the target lacks; nothing where it has all."""
    space, target = setup.space, setup.config.target
    if space.left_out:
        options = "; ".join(f"{name} {', '.join(map(str, each))}" for name, each in space.left_out.items())
        note(report, f"left out of space {space.name}, since target {target} cannot be built with it: {options}")


def _open(request: SearchRequest) -> tuple[Source, Space]:
    """The data set and the space for its tasks; where no size is given the space's own is the data's too."""
    source = open_source(request.data, request.size or (64, 64))
    space = load_space(request.space, source.tasks, request.size)
    return (source if source.size == space.size else open_source(request.data, space.size)), space


def _weights(request: SearchRequest, strategy: Strategy, source: Source) -> Path | None:
    """The file of the weights to search in; None where the strategy trains its own."""
    if request.supernet is not None or not strategy.needs.supernet:
        return request.supernet
    shipped = find_shared("nas/supernets", f"{request.space}-{source.name}.safetensors")
    if shipped is None:
        raise UserError(
            f"no supernet ships for space {request.space} and data {source.name}: train one with "
            f"`edgemtl train --space {request.space} --data {request.data} --out runs/NAME`, "
            "then give --supernet runs/NAME/supernet.safetensors"
        )
    return shipped
