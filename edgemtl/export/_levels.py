"""Several designs in one bundle over one copy of the weights: control after training, at run time.

A static graph cannot cut its weights anew for every call, so each level is an engine of its own, opened at its first
use. What all levels share lies on disk once; in memory each holds its own part, in the layout that its kernels want,
and the levels share the memory of activations.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from safetensors.numpy import save

from edgemtl._files import write_atomic
from edgemtl.bundle import BundleLevel, BundleTarget, Manifest, write_manifest
from edgemtl.data import Sample, collate
from edgemtl.errors import UnsupportedError
from edgemtl.export._bundle import FP32, Origin, check_samples, cost_of, folder_of, manifest_of, replacing
from edgemtl.export._parity import Tolerance, check_parity, measure_parity
from edgemtl.export._sharing import share_weights
from edgemtl.models import Supernet
from edgemtl.nas import Level, Levels
from edgemtl.runtime import EngineSpec, open_engine
from edgemtl.targets import ExportTarget, find_target
from edgemtl.train import Scorer

__all__ = ["check_sharing", "export_levels"]

WEIGHTS_FILE = "weights.safetensors"
SHARING_TARGET = "onnxruntime"
"""The runtime whose engines can be put together from weights that several share."""


@dataclass(frozen=True)
class _Written:
    """The files of all levels' engine, and the bytes that the models take with and without sharing."""

    files: tuple[str, ...]
    shared_bytes: int
    alone_bytes: int


def check_sharing(targets: Sequence[str]) -> None:
    """Raise `UnsupportedError` for a target whose engines cannot share weights."""
    for name in targets:
        if find_target(name).traits.name != SHARING_TARGET:
            raise UnsupportedError(
                f"target {name} cannot share the weights of levels: export them with --target {SHARING_TARGET}"
            )


def export_levels(
    found: Levels,
    folder: Path,
    *,
    validation: Sequence[Sample],
    origin: Origin,
    progress: Callable[[str], None],
) -> Manifest:
    """Write the levels as one bundle, FP32, each checked against its net; returns its manifest.

    As with `export_bundle` the folder appears whole or not at all. Raises `UserError` where an engine is too far from
    its net.
    """
    target, levels = find_target(SHARING_TARGET), found.levels
    check_samples(levels[0].candidate.net, validation, "validation")
    with replacing(folder) as scratch:
        place = scratch / folder_of(target)
        place.mkdir(parents=True)
        progress(f"building {len(levels)} levels for {SHARING_TARGET}")
        written = _write(levels, found.supernet, target, place)
        checked = [_checked(number, level, target, place, validation) for number, level in enumerate(levels)]
        share = written.shared_bytes / written.alone_bytes
        progress(
            f"models and weights: {written.shared_bytes / 1e6:.2f} MB for {len(levels)} levels, "
            f"{share:.0%} of the {written.alone_bytes / 1e6:.2f} MB that they take one by one"
        )
        first = levels[0].candidate
        parts = {
            SHARING_TARGET: BundleTarget(
                folder=folder_of(target),
                files=written.files,
                runtime=target.traits.runtime,
                parity=checked[0].parity,
            )
        }
        origin = replace(origin, design=dict(first.design))
        manifest = manifest_of(
            first.net, folder.name, first.design.precision, parts, checked[0].cost, origin, scratch, levels=checked
        )
        write_manifest(scratch, manifest)
    return manifest


def _write(levels: Sequence[Level], supernet: Supernet, target: ExportTarget, place: Path) -> _Written:
    """Build every level, and write their models over one file of weights with one `engine.json`."""
    models, spec = [], None
    for level in levels:
        with tempfile.TemporaryDirectory(prefix="edgemtl-") as alone:
            target.build(level.candidate.net, FP32, None, Path(alone))
            built = EngineSpec.read(Path(alone))
            spec = spec or built
            models.append(onnx.load(built.file(Path(alone), "model")))
    shared, tensors = share_weights(models, supernet)
    names = {"model" if number == 0 else f"level-{number}": f"level-{number}.bin" for number in range(len(models))}
    contents = {name: level.content for name, level in zip(names.values(), shared, strict=True)}
    contents[WEIGHTS_FILE] = save(tensors)
    for name, content in contents.items():
        write_atomic(place / name, content)
    assert spec is not None
    parts = [[part.as_json() for part in level.parts] for level in shared]
    described = replace(spec, files={**names, "shared": WEIGHTS_FILE}, options={**spec.options, "levels": parts})
    alone_bytes = sum(len(model.SerializeToString()) for model in models)
    files = (*contents, described.write(place).name)
    return _Written(files, sum(map(len, contents.values())), alone_bytes)


def _checked(number: int, level: Level, target: ExportTarget, place: Path, validation: Sequence[Sample]) -> BundleLevel:
    """What the manifest says of a level, once its engine was held against its net."""
    net = level.candidate.net
    names = [task.name for task in net.tasks]
    with closing(open_engine(place, modes=[names], level=number)) as session:
        parity = measure_parity(net, session, validation, Scorer)
    check_parity(net, target, FP32, None, parity, collate([validation[0]]).image, Tolerance())
    return BundleLevel(
        name=level.name,
        budget=level.budget,
        preference=dict(level.preference),
        design=dict(level.candidate.design),
        cost=cost_of(net, FP32, None, target),
        parity=parity,
    )
