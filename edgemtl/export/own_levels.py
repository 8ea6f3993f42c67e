"""Levels of a net of one's own in one bundle: narrower forms over one copy of its weights, switched at run time.

Nothing is trained for a level, so how far each agrees with the whole net is measured on photos, and recorded by task.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import numpy_helper

from edgemtl.bundle import BundleInput, BundleLevel, BundleTarget, Manifest, Parity
from edgemtl.data import Batch
from edgemtl.errors import UserError
from edgemtl.export.bundle import make_manifest
from edgemtl.export.checked import folder_of
from edgemtl.export.level_files import LevelEngine, Written, built_engine, write_engines
from edgemtl.export.levels import check_sharing
from edgemtl.export.own_contract import check_images, described_tasks, model_cost, writes_models
from edgemtl.export.own_parity import Image, Reference, check_engine, checked_modes
from edgemtl.export.parity import Tolerance
from edgemtl.export.placing import placing
from edgemtl.export.request import ExportRequest, Origin
from edgemtl.export.shared_weights import CutWeights
from edgemtl.nas.prune import NetLevel, open_declared, parse_levels, plan_net_levels
from edgemtl.own import (
    FLOAT_ENGINE,
    Declaration,
    OwnNet,
    Resolved,
    Structure,
    block_records,
    expected_outputs,
    image_input,
    module_as_onnx,
    net_digest,
    net_of_model,
    open_own_images,
    resolve,
    task_model,
)
from edgemtl.progress import Report, note, silent
from edgemtl.runtime import Outputs, prepare_image
from edgemtl.targets import ExportTarget, ModelTarget, TaskModel, arithmetic_of, is_runnable, measurer_of, needs_of

__all__ = ["export_own_levels"]

_PRECISION = {"engine": FLOAT_ENGINE}


@dataclass(frozen=True)
class _LevelModel:
    """A level as a graph with tasks, and what it gives itself for each image of the check, in its own runtime."""

    level: NetLevel
    model: TaskModel
    structure: Structure
    expected: Sequence[Outputs]


@dataclass(frozen=True)
class _Whole:
    """The whole net: its tasks, the image that it reads, images of the check, what it gives for each, and labels."""

    net: OwnNet
    resolved: Resolved
    about: BundleInput
    images: Sequence[Image]
    outputs: Sequence[Outputs]
    labels: Sequence[Batch] | None


def export_own_levels(
    opened: tuple[OwnNet, str, Declaration],
    wanted: str,
    request: ExportRequest,
    folder: Path,
    data: Path | None,
    report: Report = silent,
) -> Manifest:
    """Write a bundle of a net and narrower levels of it to `folder`, and return its manifest.

    `opened` are the net, the text that names it, and its tasks; `wanted` names the levels beside the whole net
    (`parse_levels`), `data` the folder of photos: a third of them says which channels matter, and on the last third
    each level's engine is compared with its own net, and with the whole one; or a data set, whose labels score them.
    Raises `UserError` where net, photos and levels do not fit, and where an engine is too far from its net;
    `UnsupportedError` for a target whose engines cannot share weights, and for a net that has no counterpart in
    PyTorch.
    """
    net, spec, declaration = opened
    resolved, narrower = resolve(net, declaration), parse_levels(wanted)
    target = writes_models(check_sharing([each.traits.name for each in request.find_targets()], request.device))
    if data is None:
        raise UserError(
            f"--levels {wanted} needs photos to see which channels matter: give a folder of some with --data"
        )
    given, about = open_own_images(data, net.size, resolved.tasks), image_input(net, resolved)
    levels = plan_net_levels(open_declared(net, spec, declaration, str(data), report), narrower, report)
    checked = check_images((), given)
    images = [prepare_image(picture, net.size, about) for picture in checked.pictures]
    outputs = [expected_outputs(net, resolved, image) for image in images]
    whole = _Whole(net, resolved, about, images, outputs, checked.labels)
    models = [_level_model(whole, declaration, level) for level in levels]
    digests = [net_digest(each.model, about, resolved.tasks) for each in models]
    digest = hashlib.sha256("".join(digests).encode()).hexdigest()
    with placing(folder) as position:
        position.check(digest, [target.traits.name], len(models))
        engines = position.scratch / folder_of(target)
        engines.mkdir(parents=True)
        note(report, f"building {len(models)} levels for {target.traits.name}")
        written = _write(models, target, engines)
        note(report, written.summary(len(models)))
        entries = [_entry(number, each, whole, target, engines, report) for number, each in enumerate(models)]
        parts = {target.traits.name: _bundled(whole, target, written, entries[0].parity)}
        blocks = block_records(models[0].model, models[0].structure)
        origin = Origin("", "own", entries[0].design, data=checked.about, blocks=blocks, net=net.name)
        contract = about, described_tasks(resolved, net.size, whole.outputs[0])
        manifest = make_manifest(contract, digest, _PRECISION, parts, entries[0].cost, origin, position.scratch)
        return position.publish(manifest.model_copy(update={"levels": tuple(entries)}))


def _level_model(whole: _Whole, declaration: Declaration, level: NetLevel) -> _LevelModel:
    """A level's graph; the whole net, which is the first, is compared with its own runtime, not with this graph."""
    name = f"{whole.net.name} at {level.name}"
    net = level.net
    own = net_of_model(module_as_onnx(net.module, net.flatten, net.input_size, name, net.channels), name)
    resolved = resolve(own, declaration.model_copy(update={"constants": {}}))  # they are part of the net now
    model, structure = task_model(own, resolved)
    if not level.positions:
        return _LevelModel(level, model, structure, whole.outputs)
    return _LevelModel(level, model, structure, [expected_outputs(own, resolved, image) for image in whole.images])


def _write(models: Sequence[_LevelModel], target: ExportTarget, folder: Path) -> Written:
    """The engines of all levels over the weights of the whole net, which is the first."""
    engines = [_built(each.model, target) for each in models]
    tensors = models[0].model.model.graph.initializer
    stored: dict[str, NDArray[np.float32]] = {each.name: numpy_helper.to_array(each) for each in tensors}
    return write_engines(engines, CutWeights(stored, [each.level.positions for each in models]), folder)


def _built(model: TaskModel, target: ExportTarget) -> LevelEngine:
    assert isinstance(target, ModelTarget)
    writer = target
    return built_engine(target, lambda folder: writer.build_model(model, _PRECISION, folder), lambda: model.model)


def _entry(
    number: int, made: _LevelModel, whole: _Whole, target: ExportTarget, folder: Path, report: Report
) -> BundleLevel:
    """The manifest's entry of a level, whose engine was compared with its own net and with the whole one."""
    tasks, level = whole.resolved.tasks, made.level
    names = [task.name for task in tasks]
    parity: dict[str, Parity] = {}
    if is_runnable(target, _PRECISION):
        reference = Reference(whole.images, made.expected, whole.outputs, whole.labels)
        with closing(measurer_of(target).open(folder, level=number)) as session:
            parity = check_engine(target, session, tasks, reference, False, report)
    _note_agreement(level.name, parity, report)
    return BundleLevel(
        name=level.name,
        budget=level.budget,
        preference=dict.fromkeys(names, 1.0),
        design={f"{group}.channels"[-200:]: count for group, count in level.channels.items()},
        cost=model_cost(made.model, report),
        parity=parity,
    )


def _note_agreement(level: str, parity: Mapping[str, Parity], report: Report) -> None:
    """Say which tasks of a level are far from the whole net."""
    allowed = 1 - Tolerance().reduced_metric
    low = [f"{task} {each.agreement:.1%}" for task, each in parity.items() if (each.agreement or 0.0) < allowed]
    if low:
        note(
            report,
            f"level {level} agrees little with the whole net: {', '.join(low)}; nothing is trained for a level: "
            "`edgemtl prune --finetune` teaches a narrow net, and its net.onnx can have levels too",
        )


def _bundled(whole: _Whole, target: ExportTarget, written: Written, parity: Mapping[str, Parity]) -> BundleTarget:
    """The manifest's entry of the target."""
    return BundleTarget(
        folder=folder_of(target),
        files=written.files,
        runtime=target.traits.runtime,
        parity=dict(parity),
        device=target.device.name,
        arithmetic=arithmetic_of(target),
        hardware=target.traits.hardware,
        needs=needs_of(target, _PRECISION),
        checked_on=measurer_of(target).arithmetic if parity else None,
        modes_checked=len(checked_modes(whole.resolved.tasks)) if parity else 0,
    )
