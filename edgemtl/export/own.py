"""From a net of one's own to a bundle: engines for every target, each mode checked against the net itself in float."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, combinations, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemtl.bundle import BundleCost, BundleInput, BundleTarget, BundleTask, Manifest, Parity, describe_task
from edgemtl.data import open_source
from edgemtl.errors import UnsupportedError, UserError
from edgemtl.export.bundle import make_manifest, recorded
from edgemtl.export.checked import folder_of
from edgemtl.export.parity import Difference, Tolerance, problem_of
from edgemtl.export.placing import placing
from edgemtl.export.request import ExportRequest, Origin
from edgemtl.own import (
    FLOAT,
    INT8,
    Agreement,
    Declaration,
    OwnNet,
    OwnPrecision,
    Photos,
    block_records,
    calibrate_model,
    expected_outputs,
    image_input,
    in_precision,
    named_precision,
    net_digest,
    read_photos,
    read_precision,
    ready_for_rounding,
    resolve,
    task_model,
)
from edgemtl.profiling import count_graph
from edgemtl.progress import Progress, Report, note, silent
from edgemtl.runtime import EngineSpec, Outputs, Session, load_image, prepare_image
from edgemtl.targets import ExportTarget, ModelTarget, TaskModel, arithmetic_of, is_runnable, measurer_of, needs_of
from edgemtl.tasks import Task, map_outputs

__all__ = ["Rounding", "export_own_net"]

ROOMS = 4
"""Rendered rooms that engines are checked on where no photos are given."""
_ROOM_SIZE = (192, 256)
_MOST_MODES = 64
Image = NDArray[np.float32]
Picture = NDArray[np.uint8]
Evidence = tuple[list[Image], list[Outputs]]
"""Images as the net reads them, and what the net itself gives for each."""


@dataclass(frozen=True)
class Rounding:
    """The precision that engines are wanted in, by its name, and the folder of photos that INT8 is calibrated on.

    `name` is "float", "int8" of every block, an engine precision of the targets ("bf16"), or the folder of a search for
    the same net. One third of the photos calibrates, the last third is what engines are compared on where no pictures
    are given.
    """

    name: str = FLOAT
    data: Path | None = None

    @property
    def run(self) -> Path | None:
        """The folder of a search, where the name is one."""
        return Path(self.name) if Path(self.name).is_dir() else None


def export_own_net(
    net: OwnNet,
    declaration: Declaration,
    request: ExportRequest,
    folder: Path,
    pictures: Sequence[Path] = (),
    report: Report = silent,
    rounding: Rounding = Rounding(),
) -> Manifest:
    """Write a bundle of a net's declared tasks to `folder`, and return its manifest; more engines may be added later.

    Every output is compared with the net's own, in its own runtime, on `pictures` (none: those that `rounding` leaves
    for it, else rendered rooms), and on the first of them in every mode too, of more than six tasks in the 64 smallest
    modes. A task's metric is that of the engine against the net's predictions; of less than FP32 the agreement with the
    net in float is recorded, and noted where it is low. Raises `UserError` where the declaration does not fit the net,
    a picture cannot be read, the folder holds something else, or an engine in float is too far from the net;
    `UnsupportedError` for a target that writes no engine of such a net.
    """
    resolved = resolve(net, declaration)
    targets = [_writes_models(target) for target in request.find_targets()]
    model, structure = task_model(net, resolved)
    about = image_input(net, resolved)
    photos = None if rounding.data is None else read_photos(rounding.data)
    own_digest = net_digest(model, about, resolved.tasks)
    precision = _precision(rounding, model, targets, about, photos, own_digest, report)
    digest = hashlib.sha256(own_digest.encode() + precision.digest).hexdigest()
    pictures = pictures or (() if photos is None else photos.test)
    images = _images(pictures, about)
    expected = [expected_outputs(net, resolved, image) for image in images]
    with placing(folder) as position:
        position.check(digest, [target.traits.name for target in targets])
        parts = {}
        for target in targets:
            note(report, f"building for {target.traits.name}")
            scratch = position.scratch / folder_of(target)
            written = in_precision(model, precision, target)
            made = _written(target, written, precision, resolved.tasks, scratch, (images, expected), report)
            parts[target.traits.name] = made
        blocks = block_records(model, structure, precision.values)
        origin = Origin(family="own", data=_seen_on(pictures), blocks=blocks, net=net.name)
        tasks = tuple(describe_task(task, net.size) for task in resolved.tasks)
        shaped = tuple(_with_shapes(task, expected[0][task.name]) for task in tasks)
        cost = _cost(in_precision(model, precision, targets[0]), report)
        manifest = make_manifest((about, shaped), digest, precision.values, parts, cost, origin, position.scratch)
        return position.publish(manifest)


def _writes_models(target: ExportTarget) -> ExportTarget:
    if not isinstance(target, ModelTarget):
        raise UnsupportedError(
            f"target {target.traits.name} writes no engine of a net of one's own: use onnxruntime, openvino or "
            "tensorrt-rtx"
        )
    return target


def _precision(
    rounding: Rounding,
    model: TaskModel,
    targets: Sequence[ExportTarget],
    about: BundleInput,
    photos: Photos | None,
    digest: str,
    report: Report,
) -> OwnPrecision:
    """The precision that is called so, with ranges where it needs some, or the one that a search chose for the net."""
    if rounding.run is not None:
        precision, target = read_precision(rounding.run, digest)
        if others := [each.traits.name for each in targets if each.traits.name != target]:
            raise UserError(
                f"--precision {rounding.run} was searched for {target}, not for {others[0]}: give --target {target}"
            )
        return precision
    values = named_precision(rounding.name, model, targets)
    if INT8 not in values.values():
        return OwnPrecision(values)
    if photos is None:
        raise UserError(f"--precision {rounding.name} needs photos to calibrate on: give a folder of some with --data")
    note(report, f"calibrating on {len(photos.calibration)} images")
    images = (prepare_image(load_image(path), (about.height, about.width), about) for path in photos.calibration)
    return OwnPrecision(values, calibrate_model(ready_for_rounding(model), images, len(photos.calibration)))


def _images(pictures: Sequence[Path], about: BundleInput) -> list[Image]:
    """The images of the check, as the net reads them."""
    seen: Iterable[Picture] = [load_image(path) for path in pictures]
    if not pictures:
        rooms = open_source("scenes", _ROOM_SIZE).split("validation")
        seen = (rooms[number].image for number in range(ROOMS))
    return [prepare_image(picture, (about.height, about.width), about) for picture in seen]


def _seen_on(pictures: Sequence[Path]) -> dict[str, int | str]:
    return {"name": "photos" if pictures else "scenes", "images": len(pictures) or ROOMS}


def _with_shapes(task: BundleTask, outputs: Mapping[str, Image]) -> BundleTask:
    """A task whose outputs have the sizes that the net gives, where it is dense, too."""
    shaped = tuple(out.model_copy(update={"shape": outputs[out.name].shape}) for out in task.outputs)
    return task.model_copy(update={"outputs": shaped})


def _cost(model: TaskModel, report: Report) -> BundleCost:
    cost = count_graph(model.model)
    for line in cost.notes:
        note(report, f"counts: {line}")
    return recorded(cost)


def _written(
    target: ExportTarget,
    model: TaskModel,
    precision: OwnPrecision,
    tasks: Sequence[Task],
    folder: Path,
    evidence: Evidence,
    report: Report,
) -> BundleTarget:
    """The engine in `folder`, and its entry of the manifest."""
    assert isinstance(target, ModelTarget)
    folder.mkdir(parents=True)
    files = tuple(path.as_posix() for path in target.build_model(model, precision.values, folder))
    spec, runnable = EngineSpec.read(folder), is_runnable(target, precision.values)
    parity: dict[str, Parity] = {}
    if runnable:
        with closing(measurer_of(target).open(folder)) as session:
            parity = _checked(target, session, tasks, evidence, precision.is_reduced, report)
    return BundleTarget(
        folder=folder_of(target),
        files=files,
        runtime=target.traits.runtime,
        parity=parity,
        flags=spec.flags,
        options=spec.runtime_options,
        device=target.device.name,
        arithmetic=arithmetic_of(target),
        hardware=target.traits.hardware,
        needs=needs_of(target, precision.values),
        checked_on=measurer_of(target).arithmetic if runnable else None,
        modes_checked=len(_modes(tasks)) if runnable else 0,
    )


def _checked(
    target: ExportTarget, session: Session, tasks: Sequence[Task], evidence: Evidence, reduced: bool, report: Report
) -> dict[str, Parity]:
    """Parity of each task over all images, and over the modes on the first; raises where one in float is too far."""
    names, modes = [task.name for task in tasks], _modes(tasks)
    runs, done = len(modes) + len(evidence[0]), 0
    apart = {task.name: {output.name: Difference() for output in task.outputs} for task in tasks}
    agreement = Agreement(tasks)
    for number, (image, expected) in enumerate(zip(*evidence, strict=True)):
        given = map_outputs(np.copy, session.run(image, names))
        agreement.update(image, given, expected)
        for mode in [tuple(names), *(modes if number == 0 else [])]:
            outputs = given if len(mode) == len(names) else session.run(image, mode)
            done += 1
            report(Progress("check", done, runs, target.traits.name))
            for task in mode:
                for name, difference in apart[task].items():
                    _check_values(target, task, name, outputs[task][name], expected[task][name])
                    difference.add(outputs[task][name], expected[task][name])
    parities = {task.name: _parity(task, apart[task.name], agreement, len(evidence[0]), reduced) for task in tasks}
    for each in tasks:
        _judge(target, each, parities[each.name], reduced, report)
    return parities


def _modes(tasks: Sequence[Task]) -> list[tuple[str, ...]]:
    """Every subset of tasks but all of them; of more than six tasks the smallest ones."""
    names = [task.name for task in tasks]
    subsets = chain.from_iterable(combinations(names, count) for count in range(1, len(names)))
    return list(islice(subsets, max(_MOST_MODES, len(names))))


def _check_values(target: ExportTarget, task: str, name: str, given: Image, expected: Image) -> None:
    if given.shape != expected.shape:
        raise UserError(
            f"engine for {target.traits.name}, task {task}: {name} has the shape {given.shape}, the net gives "
            f"{expected.shape}: leave that target out"
        )
    if not np.isfinite(given).all():
        raise UserError(
            f"engine for {target.traits.name}, task {task}: {name} is not finite, that of the net is: "
            "leave that target out"
        )


def _parity(task: Task, apart: Mapping[str, Difference], agreement: Agreement, images: int, reduced: bool) -> Parity:
    tolerance, metric, scores = Tolerance(), task.metric.name, agreement.scores()
    return Parity(
        outputs={output.name: apart[output.name].parity(output.unit) for output in task.outputs},
        metric=metric,
        torch=scores["float"][task.name][metric],
        engine=scores["rounded"][task.name][metric],
        images=images,
        metric_allowed=None if reduced else tolerance.float_metric,
        difference_allowed=None if reduced else tolerance.float_error,
        agreement=agreement.compute()[task.name],
    )


def _judge(target: ExportTarget, task: Task, parity: Parity, reduced: bool, report: Report) -> None:
    """Raise where an engine in float is too far from the net; note where one of less agrees with it little."""
    if not reduced and (problem := problem_of(task, parity, False, Tolerance())):
        raise UserError(f"engine for {target.traits.name}, task {task.name}: {problem}: leave that target out")
    if reduced and parity.agreement is not None and parity.agreement < 1 - Tolerance().reduced_metric:
        note(
            report,
            f"engine for {target.traits.name}, task {task.name}: agrees with the float net by {parity.agreement:.1%} "
            "alone: `edgemtl search` finds which blocks lose it, and leaves them in float",
        )
