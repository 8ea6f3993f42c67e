"""The request for a search, and its budgets: what channels and precision can answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgemtl.devices import HOST
from edgemtl.errors import UserError, unknown_name
from edgemtl.nas.evaluation import check_budgets
from edgemtl.nas.prune import NO_TUNING, FineTuning
from edgemtl.nas.search import EVALUATIONS, STRATEGIES, SamplerStrategy, Strategy, check_workers, make_strategy
from edgemtl.own import Declaration, OwnNet
from edgemtl.profiling import Measurer
from edgemtl.targets import ExportTarget, ModelTarget
from edgemtl.units import Budget, parse_budget

__all__ = ["PRUNED_QUANTITIES", "PrecisionRequest", "parse_limits", "terms_of", "usable_strategy", "usable_target"]

PRUNED_QUANTITIES = ("flops", "params")
"""Quantities that removing channels alone changes."""
_QUANTITIES = ("latency_ms", "weight_bytes", *PRUNED_QUANTITIES)
_LEAST = 2


@dataclass(frozen=True)
class PrecisionRequest:
    """A request for a search: a net, its tasks, its images, limits, and the folder of the run.

    `data` is a folder of photos, or a data set with labels of the net's tasks. Texts are as on the command line.
    Percentages of budgets are those of the net in float; floors are of each task's own metric, of photos the share of
    agreement with the float net that a task may lose. `threads` are the runtime's, 0 leaves it the choice. `tuning`
    trains what is left where channels are removed. A `strategy` (by name, with `settings` of its own) proposes so many
    `evaluations` after the greedy search, by `seed`, for a front of `objectives` (none: delta_m and latency), which so
    many `workers`, processes of this machine, share; without one that alone is the search. `storage` is an Optuna
    URL, for a study that runs share whose folders have one name; by default it is a journal in `out`. With a
    `preference`, weights of tasks, what is chosen is near the best by their mean. A script that asks for several
    workers guards its main module, as they import it.
    """

    net: OwnNet
    declaration: Declaration
    data: Path
    out: Path
    budgets: tuple[str, ...] = ()
    floors: tuple[str, ...] = ()
    preference: str = ""
    target: str = ""
    device: str = HOST
    threads: int = 0
    tuning: FineTuning = NO_TUNING
    strategy: str = ""
    settings: Mapping[str, int | float | str] = field(default_factory=dict)
    evaluations: int = EVALUATIONS
    seed: int = 0
    objectives: tuple[str, ...] = ()
    workers: int = 1
    storage: str | None = None
    resume: bool = False
    command: str = "edgemtl search"


def terms_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """The terms of a run that are known before its net is opened; `options` are fields of a request for it."""
    limits = {name: list(options[name]) for name in ("budgets", "floors")}
    terms = {**limits, "threads": options["threads"], "finetune": asdict(options["tuning"])}
    if options.get("preference"):
        terms["preference"] = options["preference"]
    if not options.get("strategy"):
        return terms
    terms |= {"strategy": options["strategy"], "settings": dict(options["settings"]), "seed": options["seed"]}
    return {**terms, "objectives": list(options["objectives"])} if options["objectives"] else terms


def parse_limits(texts: Sequence[str], target: ExportTarget, tasks: Mapping[str, object]) -> tuple[Budget, ...]:
    """The budgets; raises `UserError` for what neither channels nor precision change, or nothing measures here."""
    budgets = tuple(parse_budget(text) for text in texts)
    for budget in budgets:
        if budget.quantity not in _QUANTITIES or (budget.task and budget.quantity == "weight_bytes"):
            raise UserError(
                f"budget {budget.text!r}: channels and precision change latency, FLOPs and parameters of all tasks or "
                "of one, and the bytes of all weights: give for example 50%ms, depth:8ms, 50%FLOPs or 5MB"
            )
        if budget.task is not None and budget.task not in tasks:
            raise unknown_name(f"task in budget {budget.text!r}:", budget.task, tasks)
        if budget.runtime not in (None, target.traits.runtime):
            raise UserError(f"budget {budget.text!r} is of another runtime than {target.traits.runtime}: drop it")
    return budgets


def usable_target(target: ExportTarget, budgets: Sequence[Budget]) -> Measurer:
    """The measurer of a target's engines; `UserError` where it writes none of such a net, or nothing times them."""
    name = target.traits.name
    if not isinstance(target, ModelTarget):
        raise UserError(f"target {name} writes no engine of a net of one's own: use onnxruntime, openvino or tensorrt")
    measurer = check_budgets(budgets, target)
    if measurer.untimed is not None:
        raise UserError(
            f"precision is chosen by measured latency, and {measurer.untimed.reason}: give --device {HOST}, or a board "
            "whose file says how it is reached"
        )
    return measurer


def usable_strategy(request: PrecisionRequest) -> SamplerStrategy:
    """The requested strategy; `UserError` for one that needs a supernet's weights, and for numbers that are no use."""
    strategy = make_strategy(request.strategy, request.settings)
    if not _needs_designs_alone(strategy):
        names = [name for name in STRATEGIES.names() if _needs_designs_alone(make_strategy(name))]
        raise UserError(
            f"strategy {request.strategy} searches the weights of a supernet, which a net of one's own has not: "
            f"give {', '.join(names)}"
        )
    assert isinstance(strategy, SamplerStrategy)
    if request.evaluations < _LEAST:
        raise UserError(f"--evaluations {request.evaluations}: a strategy evaluates {_LEAST} designs or more")
    check_workers(request.workers)
    if not 0 <= request.seed < 2**32:
        raise UserError(f"seed {request.seed} cannot be used: give a number from 0 to {2**32 - 1}")
    return strategy


def _needs_designs_alone(strategy: Strategy) -> bool:
    return isinstance(strategy, SamplerStrategy) and strategy.needs.sensitivity != "required"
