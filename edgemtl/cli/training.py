"""The beginnings of `edgemtl train`: space and data, initial weights, a teacher, and where designs are drawn from."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgemtl.cli.stages import Stages
from edgemtl.errors import UserError
from edgemtl.progress import Report, note, silent
from edgemtl.units import parse_budget

if TYPE_CHECKING:
    from edgemtl.data import Source, Split
    from edgemtl.spaces import Design, DesignSource, Space
    from edgemtl.train import InitialWeights, Recipe, Teacher

__all__ = ["Fronts", "draws", "initial_weights", "open_teacher", "open_training", "prepare"]


@dataclass(frozen=True)
class Fronts:
    """The finished searches near whose fronts designs are drawn, and the fewest FLOPs of such a design, as given."""

    runs: Sequence[Path] = ()
    above: str | None = None


def draws(space: Space, fronts: Fronts, recipe: Recipe) -> tuple[DesignSource, Recipe]:
    """Where random designs are drawn from, and the recipe that says so."""
    from edgemtl.nas.runs import front_designs
    from edgemtl.spaces import NearDesigns

    if not fronts.runs:
        if fronts.above is not None:
            raise UserError(f"--near-above {fronts.above}: says which designs of --near RUN are meant; give that too")
        return space, recipe
    of_fronts = tuple(dict.fromkeys(design for run in fronts.runs for design in front_designs(run, space)))
    designs = NearDesigns(space, of_fronts if fronts.above is None else _of_at_least(fronts.above, of_fronts))
    return designs, replace(recipe, near=designs.drawn)


def _of_at_least(amount: str, designs: Sequence[Design]) -> tuple[Design, ...]:
    """The designs of at least so many FLOPs; `UserError` where the amount is of something else, or none has so many."""
    least = parse_budget(amount)
    if least.quantity != "flops" or least.task is not None:
        raise UserError(f"--near-above {amount}: give the FLOPs of whole designs, such as 1GFLOPs or 25%FLOPs")
    flops = least.limit(designs[0].space.largest().cost().flops)
    near = tuple(design for design in designs if design.cost().flops >= flops)
    if not near:
        most = max(design.cost().flops for design in designs)
        raise UserError(f"--near-above {amount}: the designs of these fronts have {most / 1e9:.3g} GFLOPs at most")
    return near


def open_teacher(name: str | None, source: Source, recipe: Recipe) -> tuple[Teacher | None, Recipe]:
    """The supernet that teaches the largest design, if any, and the recipe that says so."""
    from edgemtl.train import find_teacher

    if name is None:
        return None, recipe
    teacher = find_teacher(name, source)
    return teacher, replace(recipe, taught_by=teacher.sha256)


def open_training(space: str, data: str, size: tuple[int, int] | None, images: int | None) -> tuple[Space, Source]:
    """Open the space for the data set's tasks, and the data at the space's size."""
    from edgemtl.data import open_source
    from edgemtl.data.scenes import ScenesSource
    from edgemtl.spaces import load_space

    first = open_source(data, size or (64, 64))
    chosen = load_space(space, first.tasks, size)
    if images is None:
        return chosen, open_source(data, chosen.size)
    if data != ScenesSource.name:
        raise UserError(
            f"--images {images}: only scenes are rendered on demand; data set {data!r} has the images it has"
        )
    return chosen, ScenesSource(chosen.size, train=images)


def initial_weights(space: Space, weights: str | None, seed: int, report: Report = silent) -> InitialWeights | None:
    """Weights of a trained supernet, or public ones, most important channels first; None to train from scratch.

    `report` gets a note of what was taken from a supernet of other tasks.
    """
    if weights is None:
        return None
    from edgemtl.files.seals import sha256
    from edgemtl.files.share import find_shared
    from edgemtl.models import is_supernet, load_matching, load_pretrained, load_supernet, read_header, sort_channels
    from edgemtl.train import InitialWeights, fresh_supernet

    supernet = fresh_supernet(space, seed)
    shipped = None if Path(weights).exists() else find_shared("nas/supernets", f"{weights}.safetensors")
    path = shipped or Path(weights)
    if is_supernet(path):
        if read_header(path).get("fingerprint") == space.fingerprint:
            load_supernet(supernet, path, space.fingerprint)
        else:
            matched = load_matching(supernet, path)
            note(report, f"weights {weights}: taken are {'; '.join([', '.join(matched.taken), *matched.left])}")
        digest = sha256(path)
    else:
        digest = load_pretrained(supernet, space.largest().plan, weights)
        sort_channels(supernet)
    return InitialWeights(supernet, digest)


def prepare(source: Source) -> None:
    """Render a rendered data set ahead of time, on all cores; of processes on one machine the first one does it."""
    from edgemtl.data.scenes import ScenesSource
    from edgemtl.train import Launched

    if not isinstance(source, ScenesSource):
        return
    splits: tuple[Split, ...] = ("train", "validation")
    if Launched.here().local_rank:
        while not all(map(source.is_prepared, splits)):
            time.sleep(1)
        return
    with Stages() as stages:
        for split in splits:
            source.prepare(split, os.cpu_count() or 1, stages)
