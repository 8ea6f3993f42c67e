"""Levels of control for a bundle: designs for several budgets and preferences, all cut from a run's supernet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from edgemtl.data import Source
from edgemtl.errors import UserError
from edgemtl.files.seals import sha256
from edgemtl.files.share import find_shared
from edgemtl.models import Supernet, load_supernet
from edgemtl.nas.evaluation import (
    Candidate,
    Evaluator,
    Limit,
    Sensitivity,
    find_sensitivity,
    measure_into_run,
    share_sensitivity,
)
from edgemtl.nas.runs import RunFolder
from edgemtl.nas.search import make_table, widths_for
from edgemtl.progress import Report, note, silent
from edgemtl.runs import RunConfig
from edgemtl.spaces import ENGINE, Design, Space
from edgemtl.targets import measurer_of
from edgemtl.units import Budget, parse_budget

__all__ = ["Level", "Levels", "plan_levels"]

PREFERRED = 4.0
"""Weight of a preferred task where the others weigh 1."""
PARTS = (1.0, 0.5, 0.25)
"""Parts of the run's budgets that levels are made for."""


@dataclass(frozen=True)
class Level:
    """One design with the budgets (as text) and task weights that it was chosen for."""

    name: str
    budget: str
    preference: Mapping[str, float]
    candidate: Candidate


@dataclass(frozen=True)
class Levels:
    """Levels over one supernet, the run's own preference first, and the data that they were calibrated on."""

    levels: tuple[Level, ...]
    supernet: Supernet
    source: Source


def plan_levels(run: RunFolder, count: int, supernet: Path | None = None, report: Report = silent) -> Levels:
    """`count` different levels of a run, their batch-norm statistics measured.

    First the run's own preference, then each task preferred, within the run's counted budgets (the FLOPs of its chosen
    design, where it has none); then the same within half of them, and a quarter. Blocks are float, and engines have the
    precision of the run's chosen design. `supernet` is the file that the run was searched in (none: the one that ships
    for its space and data). Raises `UserError` for another supernet, changed data, and where there are fewer different
    levels.
    """
    if count < 2:
        raise UserError(f"{count} levels given: give 2 or more, or export without --levels")
    config, space, source = run.config(), run.space(), run.source()
    path = _supernet_of(run, config, source, supernet)
    weights = Supernet.of(space)
    load_supernet(weights, path, space.fingerprint)
    target = run.target()
    evaluator = Evaluator(source, target, measurer_of(target), [""], supernet=weights)
    cache_key = {"supernet_sha256": str(config.supernet_sha256), "data_fingerprint": config.data_fingerprint}
    sensitivity = _sensitivity(run, path, space, evaluator, cache_key, report)
    levels: dict[str, Level] = {}
    best = run.load("best").design
    if "int8" in best.precision.values():
        mixed = "levels are float, the run's INT8 blocks too: rounded, two levels would have few weights in common"
        note(report, mixed)
    for name, budget, preference, design in _answers(config, space, sensitivity, best):
        if len(levels) < count and design.key not in levels:
            note(report, f"level {name}: {design.cost().flops / 1e9:.2f} GFLOPs")
            levels[design.key] = Level(name, budget, preference, evaluator.candidate(design))
    if len(levels) < count:
        raise UserError(
            f"{count} levels asked for, but run {run.path} has only {len(levels)} different ones within its budgets: "
            "ask for fewer, or search with a larger budget"
        )
    return Levels(tuple(levels.values()), weights, source)


def _supernet_of(run: RunFolder, config: RunConfig, source: Source, given: Path | None) -> Path:
    own = given or (Path(config.supernet) if config.supernet else None)
    path = own or find_shared("nas/supernets", f"{config.space}-{source.name}.safetensors")
    if path is None or not path.is_file():
        missing = "which does not ship" if own is None else f"and {own} does not exist"
        raise UserError(
            f"levels are cut from the supernet that run {run.path} was searched in, {missing}: "
            "name its file with --supernet"
        )
    if sha256(path) != config.supernet_sha256:
        raise UserError(
            f"supernet {path} is not the one that run {run.path} was searched in: name that one with --supernet"
        )
    return path


def _sensitivity(
    run: RunFolder, supernet: Path, space: Space, evaluator: Evaluator, cache_key: Mapping[str, str], report: Report
) -> Sensitivity:
    """The supernet's map, from its file, the run, or measured now into the run."""
    sensitivity = find_sensitivity(supernet, run.path, cache_key)
    if sensitivity is None:
        sensitivity = measure_into_run(
            run.path,
            cache_key,
            space,
            lambda design: evaluator.simulated(evaluator.candidate(design)),
            evaluator.simulated(evaluator.candidate(space.largest())),
            report,
        )
        share_sensitivity(supernet, run.path, cache_key)
    return sensitivity


def _answers(
    config: RunConfig, space: Space, sensitivity: Sensitivity, best: Design
) -> Iterator[tuple[str, str, dict[str, float], Design]]:
    """Name, budget, preference and design of level after level, until a part of the budgets is too little."""
    names = [task.name for task in space.tasks]
    table, limits = make_table(space, sensitivity), _limits(config, space, best)
    precision = {ENGINE: best[ENGINE]} if ENGINE in best else {}
    wanted = {"own": dict(config.preference)}
    wanted |= {name: {**dict.fromkeys(names, 1.0), name: PREFERRED} for name in names}
    for part in PARTS:
        share = "" if part == 1 else f"{part:.0%} of "
        budget = ", ".join(f"{share}{limit.budget.text}" for limit in limits)
        parts = [Limit(limit.budget, part * limit.value) for limit in limits]
        for name, preference in wanted.items():
            try:
                design = widths_for(table, preference, parts, precision=precision)
            except UserError:
                if part == PARTS[0]:
                    raise
                return
            yield f"{name}@{part:.0%}", budget, preference, design


def _limits(config: RunConfig, space: Space, best: Design) -> list[Limit]:
    """The run's counted budgets; where it has none, the FLOPs of its chosen design."""
    limits = []
    for budget in map(parse_budget, config.budgets):
        limit = Limit(budget, 0.0)
        if limit.exact:
            limits.append(Limit(budget, budget.limit(limit.count(space.largest()))))
    if limits:
        return limits
    flops = float(best.cost().flops)
    return [Limit(Budget("flops", flops, f"{flops / 1e9:.3g}GFLOPs"), flops)]
