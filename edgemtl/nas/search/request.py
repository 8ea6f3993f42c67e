"""The request for a search."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgemtl.devices import HOST
from edgemtl.errors import UserError
from edgemtl.runs import in_words, read_config, same_data
from edgemtl.train import Recipe
from edgemtl.units import parse_budget

__all__ = [
    "AUTO",
    "EVALUATIONS",
    "MEASURED",
    "PREDICTED",
    "SearchRequest",
    "as_before",
    "check_numbers",
    "check_workers",
    "default_steps",
    "of_another",
]

AUTO, MEASURED, PREDICTED = "auto", "measured", "predicted"
"""Where latencies of candidates come from: what is less work, engines, or a table; a file's name is that table."""
EVALUATIONS = 36
MOST_WORKERS = 64
STEPS_IN_BF16, STEPS_IN_FP32 = 600, 200
"""Steps of a fine-tuning that take two cores a few minutes: where BF16 trains faster than FP32, and elsewhere."""


def default_steps() -> int:
    """Steps that finalists are trained for where none are given: what this machine does in a few minutes."""
    return STEPS_IN_BF16 if Recipe().computes_bf16() else STEPS_IN_FP32


@dataclass(frozen=True)
class SearchRequest:
    """A request for a search. Texts are as on the command line, so that a run repeats the user's words.

    `space` and `target` are names, `data` a source's name or path, `supernet` a file (None: the one that ships for this
    space and data, or none where the strategy trains its own). `settings` are the strategy's own, as values or texts.
    `evaluations` designs are measured in batches of `batch`; up to `finalists` architectures are refined at the end,
    and up to `front_size` designs kept. `objectives` are names, in their order; none: quality and cost. `storage` is an
    Optuna URL, for many workers; by default a journal in `out`. `workers` processes of this machine share the work.
    `origin` is a finished run, whose measurements serve again: `evaluations` more are made, and none where that is 0.
    An empty `target` is the runtime that a budget names, else the device's first one that is a target; `device` is the
    one that it is for, which a budget may name instead of the host.
    `threads` 0 leaves the number to the runtime. The finalists are trained for `finetune` steps before one is chosen
    (0: not at all), in so many `processes`; a script that asks for several of either guards its main module, as they
    import it. They compute in BF16 where `bf16` says so; None leaves it to what is faster here. `latency` says where
    latencies of candidates come from: "measured", "predicted", a table's file, or "auto": predicted where a table fits
    or is less work to make than measuring.
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
    settings: Mapping[str, int | float | str] = field(default_factory=dict)
    evaluations: int = EVALUATIONS
    batch: int = 12
    finalists: int = 3
    front_size: int = 6
    seed: int = 0
    supernet: Path | None = None
    storage: str | None = None
    workers: int = 1
    origin: Path | None = None
    objectives: tuple[str, ...] = ()
    threads: int = 0
    finetune: int = field(default_factory=default_steps)
    processes: int = 1
    bf16: bool | None = None
    latency: str = AUTO
    resume: bool = False
    command: str = "edgemtl search"


def as_before(request: SearchRequest, origin: Path, given: Collection[str]) -> SearchRequest:
    """The request with everything that is not `given` (names of fields) as it was in the run `origin`, or left out.

    Raises `UserError` where data, space, target or device are given, if by a budget, and others.
    """
    config = read_config(origin)
    before = {"space": config.space, "data": config.data, "target": config.target, "device": config.device.name}
    after = before | {name: getattr(request, name) for name in before if name in given}
    for budget in map(parse_budget, request.budgets):
        named = {"target": budget.runtime, "device": budget.device}
        after |= {name: value for name, value in named.items() if value is not None}
    alike = {"data"} if same_data(before["data"], after["data"]) else set()
    if changed := [name for name in before if name not in alike and before[name] != after[name]]:
        raise of_another(origin, in_words(changed, before, after))
    terms = dict(
        budgets=config.budgets,
        floors=config.floors,
        preference=",".join(f"{task}={weight:.9f}" for task, weight in config.preference.items()),
        space=config.space,
        data=config.data,
        size=config.size,
        target=config.target,
        device=config.device.name,
        objectives=config.objectives,
        strategy=config.strategy,
        settings=dict(config.strategy_config),
        seed=config.seed,
        finetune=0,
        supernet=Path(config.supernet) if config.supernet else None,
        threads=config.threads or 0,
    )
    kept = {*given, *({"settings"} if {"strategy", "steps"} & {*given} else ())}
    changes: dict[str, Any] = {name: value for name, value in terms.items() if name not in kept}
    return replace(request, **changes)


def of_another(run: Path, difference: str, wanted: str = "the same") -> UserError:
    """The error of a run whose measurements cannot serve again, as it is of another data set, space or the like."""
    return UserError(
        f"run {run} is of another {difference}, so that --from cannot take its measurements: give {wanted}, or search "
        "without --from"
    )


def check_numbers(request: SearchRequest) -> None:
    """`UserError` for a number of a request that no search can use."""
    least = 0 if request.origin else 2
    if request.evaluations < least:
        raise UserError(f"--evaluations {request.evaluations}: a search needs {least} or more")
    if request.batch < 2:
        raise UserError(f"a batch of {request.batch} designs given: a search needs 2 or more in one")
    if request.finalists < 1 or request.front_size < 1:
        raise UserError(
            f"{request.finalists} finalists and a front of {request.front_size} given: a search needs 1 or more of each"
        )
    if not 0 <= request.seed < 2**32:
        raise UserError(f"seed {request.seed} cannot be used: give a number from 0 to {2**32 - 1}")
    if request.finetune < 0:
        raise UserError(f"--finetune {request.finetune}: give the steps that finalists are trained for, 0 for none")
    if request.processes < 1:
        raise UserError(f"{request.processes} training processes given: give 1 or more")
    check_workers(request.workers)
    if request.threads < 0:
        raise UserError(f"{request.threads} threads given: give 0 (the runtime's choice) or more")


def check_workers(workers: int) -> None:
    """`UserError` for a number of processes of this machine that no search has."""
    if not 1 <= workers <= MOST_WORKERS:
        raise UserError(f"{workers} workers given: give 1 to {MOST_WORKERS} processes of this machine")
