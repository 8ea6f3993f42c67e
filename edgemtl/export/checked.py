"""Comparison of engines with their net, as far as they can run from here, for the manifest."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from edgemtl.bundle import Parity
from edgemtl.data import collate
from edgemtl.export.parity import check_parity, measure_parity, simulated_run
from edgemtl.export.request import ExportedNet
from edgemtl.export.usage import describe_dispatch
from edgemtl.targets import (
    ExportTarget,
    SimulatingTarget,
    arithmetic_of,
    find_target,
    is_runnable,
    measurer_of,
    needs_of,
)
from edgemtl.traits import TargetTraits

__all__ = ["Build", "checked", "folder_of", "honoured"]

Build = Callable[[ExportTarget, Path], object]
"""Writes a target's engine into a folder, ready to be opened."""


def checked(subject: ExportedNet, target: ExportTarget, folder: Path, build: Build) -> dict[str, Any]:
    """Manifest entry of the engine in `folder`: its device, its needs, and its parity.

    Parity is that of the engine where it runs right here, else of its simulation; there is none where tokens of experts
    may be dropped, which the simulation does not do. Where the engine is written otherwise than the device's own
    processor would have it, `build` makes that one too, to say what this costs. Raises `UserError` where the engine is
    too far from the net.
    """
    precision = honoured(subject.precision, target.traits)
    runnable, dispatch = is_runnable(target, precision), describe_dispatch(target, subject.net)
    parity: dict[str, Parity] = {}
    if runnable:
        parity = _measured(subject, target, folder)
    elif isinstance(target, SimulatingTarget):
        with target.simulation(subject.net, folder) as simulated:
            parity = measure_parity(subject.net, simulated, subject.samples)
    elif dispatch is None or dispatch.capacity is None:
        run = simulated_run(subject.net, precision, subject.ranges, target)
        parity = measure_parity(subject.net, run, subject.samples)
    if parity:
        image = collate([subject.samples[0]]).image
        parity = check_parity(subject.net, target, precision, subject.ranges, parity, image, subject.tolerance)
    return {
        "runtime": target.traits.runtime,
        "parity": parity,
        "dispatch": dispatch,
        "device": target.device.name,
        "arithmetic": arithmetic_of(target),
        "hardware": target.traits.hardware,
        "needs": needs_of(target, precision),
        "checked": "engine" if runnable else "simulation",
        "checked_on": measurer_of(target).arithmetic if runnable else None,
        "own_parity": _own_parity(subject, target, precision, build),
    }


def _measured(subject: ExportedNet, target: ExportTarget, folder: Path) -> dict[str, Parity]:
    modes = [[task.name for task in subject.net.tasks]]
    with closing(measurer_of(target).open(folder, modes=modes)) as session:
        return measure_parity(subject.net, session.run, subject.samples)


def _own_parity(
    subject: ExportedNet, target: ExportTarget, precision: Mapping[str, str], build: Build
) -> dict[str, Parity] | None:
    """Parity by the scheme of the device's own processor; None where it is this one, or does not run right here."""
    own = find_target(target.traits.name, subject.device)
    if "int8" not in precision.values() or own.scheme == target.scheme or not is_runnable(own, precision):
        return None
    with tempfile.TemporaryDirectory(prefix="edgemtl-") as folder:
        build(own, Path(folder))
        return _measured(subject, own, Path(folder))


def folder_of(target: ExportTarget) -> str:
    """Where a target's engine lies inside a bundle."""
    return f"engines/{target.traits.name}"


def honoured(precision: Mapping[str, str], traits: TargetTraits) -> dict[str, str]:
    """The precision that a target runs: what it lacks is done in its first one, FP32 where it has that."""
    return {
        name: value if value in offered else offered[0]
        for name, value in precision.items()
        for offered in [traits.engine_precisions if name == "engine" else traits.block_precisions]
    }
