"""Sensitivity of each choice: the largest net with one choice a step lower, scored per task, once per supernet.

The vector form of the sensitivity map that one-score pruners bisect (FastNAS): a number for every choice and task.
Effects of several choices are taken to multiply, which is a first guess at any design's quality before one is measured.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from edgemtl.errors import UserError
from edgemtl.files.disk import read_json, write_json
from edgemtl.files.seals import check_seal, sealed
from edgemtl.progress import Progress, Report, silent
from edgemtl.schema import first_problem
from edgemtl.spaces import Design, Space, is_precision
from edgemtl.tasks import relative_change

__all__ = [
    "SENSITIVITY_FILE",
    "Sensitivity",
    "copy_sensitivity",
    "find_sensitivity",
    "measure_into_run",
    "measure_sensitivity",
    "one_step_down",
    "read_sensitivity",
    "sensitivity_origin",
    "share_sensitivity",
    "write_sensitivity",
]

Metrics = Mapping[str, Mapping[str, float]]
SCHEMA = "edgemtl.sensitivity/1"
_CHANGES = TypeAdapter(dict[str, dict[str, float]])
SENSITIVITY_FILE = "sensitivity.json"
"""A map's name in a run's folder; next to a supernet it has the supernet's name."""
_BESIDE = "beside_supernet"
"""The key of a copied map that names the supernet that it lay beside."""
PART_FILE = "sensitivity.part.json"
"""The map of a run as far as it is measured."""
_WORST = -0.9
"""A task never loses more of its score than this in one step, so that logarithms stay finite."""


@dataclass(frozen=True)
class Sensitivity:
    """Relative change of every task for one step down in each choice: {choice: {task: fraction, better is positive}}.

    Choices that have no effect in the largest net (a kernel that only depthwise blocks have) are not in it.
    """

    changes: Mapping[str, Mapping[str, float]]

    def expect(self, designs: Sequence[Design], task: str) -> NDArray[np.float64]:
        """Expected relative change of a task against the largest net: steps down multiply, all of a choice alike."""
        return np.expm1(self.logarithm(designs, task))

    def logarithm(self, designs: Sequence[Design], task: str) -> NDArray[np.float64]:
        """Logarithm of the share of a task's score that is expected to be left: steps down add up."""
        return np.array([sum(self._steps(design, task)) for design in designs], np.float64)

    def _steps(self, design: Design, task: str) -> list[float]:
        choices = [c for c in design.space.choices if c.name in self.changes and c.active(design)]
        down = {c.name: len(c.options) - 1 - c.options.index(design[c.name]) for c in choices}
        return [n * float(np.log1p(max(self.changes[name][task], _WORST))) for name, n in down.items()]


def one_step_down(space: Space) -> dict[str, Design]:
    """The largest net with one architecture choice at its last but one option, by the choice's name."""
    largest = space.largest()
    lowered = {
        choice.name: space.design({**largest, choice.name: choice.options[-2]})
        for choice in space.choices
        if not is_precision(choice) and len(choice.options) > 1 and choice.active(largest)
    }
    return {name: design for name, design in lowered.items() if design.key != largest.key}


def measure_sensitivity(
    space: Space,
    score: Callable[[Design], Metrics],
    baseline: Metrics,
    report: Report = silent,
    measured: Sensitivity | None = None,
    keep: Callable[[Sensitivity], None] = lambda sensitivity: None,
) -> Sensitivity:
    """The map from the `score` of each design of `one_step_down`; `baseline` are the largest net's own scores.

    Choices that are `measured` are not scored again; `keep` gets the map as far as it is after each one.
    """
    designs, changes = one_step_down(space), dict(measured.changes if measured else {})
    for number, (name, design) in enumerate(designs.items()):
        if name not in changes:
            report(Progress("sensitivity", number, len(designs), name))
            scores = score(design)
            changes[name] = {t.name: relative_change(t, scores[t.name], baseline[t.name]) for t in space.tasks}
            keep(Sensitivity(changes))
    report(Progress("sensitivity", len(designs), len(designs)))
    return Sensitivity({name: changes[name] for name in designs})


def measure_into_run(
    run: Path,
    cache_key: Mapping[str, str],
    space: Space,
    score: Callable[[Design], Metrics],
    baseline: Metrics,
    report: Report,
) -> Sensitivity:
    """The map, measured as by `measure_sensitivity` and written into a run's folder; from where it was stopped."""
    part, whole = run / PART_FILE, run / SENSITIVITY_FILE
    measured = read_sensitivity(part, cache_key)
    keep = partial(write_sensitivity, part, cache_key=cache_key)
    sensitivity = measure_sensitivity(space, score, baseline, report, measured, keep)
    write_sensitivity(whole, sensitivity, cache_key)
    part.unlink(missing_ok=True)
    return sensitivity


def write_sensitivity(path: Path, sensitivity: Sensitivity, cache_key: Mapping[str, str]) -> None:
    """Write a map, atomically, with the hashes of the supernet and the data that it was made for, its `cache_key`."""
    changes = {choice: dict(by_task) for choice, by_task in sensitivity.changes.items()}
    write_json(path, sealed({"schema": SCHEMA, **cache_key, "changes": changes}))


def read_sensitivity(path: Path, cache_key: Mapping[str, str]) -> Sensitivity | None:
    """The map of a file; None where there is none, or one of another supernet or other data.

    Raises `UserError` for a damaged one.
    """
    if not path.exists() and not path.is_symlink():
        return None
    stored = read_json(path, "sensitivity map")
    wanted = {"schema": SCHEMA, **cache_key}
    if not isinstance(stored, dict) or any(stored.get(key) != value for key, value in wanted.items()):
        return None
    try:
        sensitivity = Sensitivity(_CHANGES.validate_python(stored.get("changes"), strict=True))
    except ValidationError as error:
        raise UserError(
            f"sensitivity map {path} holds no changes that can be used ({first_problem(error)}): it is damaged; "
            "delete it, it is made again"
        ) from error
    if "sha256" in stored:  # those that shipped before files carried hashes have none
        check_seal(stored, path, "sensitivity map")
    return sensitivity


def share_sensitivity(supernet: Path, run: Path, cache_key: Mapping[str, str]) -> None:
    """Put the map that was measured into a run next to the supernet's file, where every search in it looks first.

    Nothing is written where that folder cannot be, nor over a map of the same weights, which is then of other data.
    """
    measured, shared = run / SENSITIVITY_FILE, supernet.with_suffix(f".{SENSITIVITY_FILE}")
    before = read_json(shared, "sensitivity map") if shared.exists() or shared.is_symlink() else {}
    of_others = isinstance(before, dict) and before.get("supernet_sha256") == cache_key["supernet_sha256"]
    if os.access(shared.parent, os.W_OK) and not of_others:
        write_json(shared, read_json(measured, "sensitivity map"))


def copy_sensitivity(supernet: Path, run: Path, cache_key: Mapping[str, str]) -> Sensitivity | None:
    """The map next to a supernet's file, if there is one, with a copy in a run's folder, with which that goes on."""
    shared = supernet.with_suffix(f".{SENSITIVITY_FILE}")
    if (sensitivity := read_sensitivity(shared, cache_key)) is not None:
        write_sensitivity(run / SENSITIVITY_FILE, sensitivity, {**cache_key, _BESIDE: supernet.name})
    return sensitivity


def sensitivity_origin(run: Path) -> str:
    """Where the map in a run's folder is from, in words."""
    supernet = read_json(run / SENSITIVITY_FILE, "sensitivity map").get(_BESIDE)
    return f"the map beside the supernet {supernet}" if supernet else "measured in this run"


def find_sensitivity(supernet: Path, run: Path, cache_key: Mapping[str, str]) -> Sensitivity | None:
    """The map next to a supernet's file, else the one that was measured into a run's folder, else None."""
    shipped = read_sensitivity(supernet.with_suffix(f".{SENSITIVITY_FILE}"), cache_key)
    return shipped or read_sensitivity(run / SENSITIVITY_FILE, cache_key)
