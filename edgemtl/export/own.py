"""From a net of one's own to a bundle: engines in float for every target, each mode checked against the net itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from itertools import chain, combinations, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemtl.bundle import BundleCost, BundleInput, BundleTarget, BundleTask, Manifest, Parity, describe_task
from edgemtl.data import Batch, open_source
from edgemtl.errors import UnsupportedError, UserError
from edgemtl.export.bundle import FP32, make_manifest, recorded
from edgemtl.export.checked import folder_of
from edgemtl.export.parity import Difference, Tolerance, problem_of
from edgemtl.export.placing import placing
from edgemtl.export.request import ExportRequest, Origin
from edgemtl.own import Declaration, OwnNet, Resolved, block_records, resolve, task_model
from edgemtl.profiling import count_graph
from edgemtl.progress import Progress, Report, note, silent
from edgemtl.runtime import EngineSpec, Outputs, Session, load_image, prepare_image
from edgemtl.targets import ExportTarget, ModelTarget, TaskModel, arithmetic_of, is_runnable, measurer_of
from edgemtl.tasks import Task, kind_of, map_outputs
from edgemtl.train import Scorer

__all__ = ["export_own_net"]

ROOMS = 4
"""Rendered rooms that engines are checked on where no photos are given."""
_ROOM_SIZE = (192, 256)
_MOST_MODES = 64
Image = NDArray[np.float32]
Picture = NDArray[np.uint8]
Evidence = tuple[list[Image], list[Outputs]]
"""Images as the net reads them, and what the net itself gives for each."""


def export_own_net(
    net: OwnNet,
    declaration: Declaration,
    request: ExportRequest,
    folder: Path,
    pictures: Sequence[Path] = (),
    report: Report = silent,
) -> Manifest:
    """Write a bundle of a net's declared tasks to `folder`, and return its manifest; more engines may be added later.

    Every output is compared with the net's own, in its own runtime, on `pictures` (none: rendered rooms), and on the
    first of them in every mode too, of more than six tasks in the 64 smallest modes. A task's metric is that of the
    engine against the net's predictions. Raises `UserError` where the declaration does not fit the net, a picture
    cannot be read, the folder holds something else, or an engine is too far from the net; `UnsupportedError` for a
    target that writes no engine of such a net.
    """
    resolved = resolve(net, declaration)
    targets = [_writes_models(target) for target in request.find_targets()]
    model, structure = task_model(net, resolved)
    about = _input(net, resolved)
    images = _images(pictures, about)
    expected = [_expected(net, resolved, image) for image in images]
    content = model.model.SerializeToString(deterministic=True)
    digest = hashlib.sha256(content + about.model_dump_json().encode() + repr(resolved.tasks).encode()).hexdigest()
    with placing(folder) as position:
        position.check(digest, [target.traits.name for target in targets])
        parts = {}
        for target in targets:
            note(report, f"building for {target.traits.name}")
            scratch = position.scratch / folder_of(target)
            parts[target.traits.name] = _written(target, model, resolved.tasks, scratch, (images, expected), report)
        origin = Origin(family="own", data=_seen_on(pictures), blocks=block_records(model, structure), net=net.name)
        tasks = tuple(describe_task(task, net.size) for task in resolved.tasks)
        shaped = tuple(_with_shapes(task, expected[0][task.name]) for task in tasks)
        cost = _cost(model, report)
        return position.publish(make_manifest((about, shaped), digest, FP32, parts, cost, origin, position.scratch))


def _writes_models(target: ExportTarget) -> ExportTarget:
    if not isinstance(target, ModelTarget):
        raise UnsupportedError(
            f"target {target.traits.name} writes no engine of a net of one's own: use onnxruntime or openvino"
        )
    return target


def _input(net: OwnNet, resolved: Resolved) -> BundleInput:
    height, width = net.size
    pixels = resolved.pixels
    return BundleInput(
        height=height, width=width, colour=pixels.colour, scale=pixels.scale, mean=pixels.mean, std=pixels.std
    )


def _images(pictures: Sequence[Path], about: BundleInput) -> list[Image]:
    """The images of the check, as the net reads them."""
    seen: Iterable[Picture] = [load_image(path) for path in pictures]
    if not pictures:
        rooms = open_source("scenes", _ROOM_SIZE).split("validation")
        seen = (rooms[number].image for number in range(ROOMS))
    return [prepare_image(picture, (about.height, about.width), about) for picture in seen]


def _seen_on(pictures: Sequence[Path]) -> dict[str, int | str]:
    return {"name": "photos" if pictures else "scenes", "images": len(pictures) or ROOMS}


def _expected(net: OwnNet, resolved: Resolved, image: Image) -> Outputs:
    """The net's own outputs, as an engine's outputs are: float32, with a batch of one."""
    own = net.reference(image)
    outputs: Outputs = {}
    for task in resolved.tasks:
        outputs[task.name] = {}
        for name, tensor in resolved.tensors[task.name].items():
            value = np.asarray(own[tensor], np.float32)
            if not np.isfinite(value).all():
                raise UserError(
                    f"output {tensor} of {net.name} is not finite on an image of the check, so nothing can be compared "
                    "with it: look at input in the tasks file, or leave that output out by unused"
                )
            outputs[task.name][name] = value if value.shape[:1] == (1,) else value[None]
    return outputs


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
    tasks: Sequence[Task],
    folder: Path,
    evidence: Evidence,
    report: Report,
) -> BundleTarget:
    """The engine in `folder`, and its entry of the manifest."""
    assert isinstance(target, ModelTarget)
    folder.mkdir(parents=True)
    files = tuple(path.as_posix() for path in target.build_model(model, FP32, folder))
    spec, runnable = EngineSpec.read(folder), is_runnable(target, FP32)
    parity: dict[str, Parity] = {}
    if runnable:
        with closing(measurer_of(target).open(folder)) as session:
            parity = _checked(target, session, tasks, evidence, report)
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
        checked_on=measurer_of(target).arithmetic if runnable else None,
        modes_checked=len(_modes(tasks)) if runnable else 0,
    )


def _checked(
    target: ExportTarget, session: Session, tasks: Sequence[Task], evidence: Evidence, report: Report
) -> dict[str, Parity]:
    """Parity of each task over all images, and over the modes on the first; raises where one is too far."""
    names, modes = [task.name for task in tasks], _modes(tasks)
    runs, done = len(modes) + len(evidence[0]), 0
    apart = {task.name: {output.name: Difference() for output in task.outputs} for task in tasks}
    scorers = {"torch": Scorer(tasks), "engine": Scorer(tasks)}
    for number, (image, expected) in enumerate(zip(*evidence, strict=True)):
        given = map_outputs(np.copy, session.run(image, names))
        batch = _own_labels(tasks, expected, image)
        scorers["torch"].update(expected, batch)
        scorers["engine"].update(given, batch)
        for mode in [tuple(names), *(modes if number == 0 else [])]:
            outputs = given if len(mode) == len(names) else session.run(image, mode)
            done += 1
            report(Progress("check", done, runs, target.traits.name))
            for task in mode:
                for name, difference in apart[task].items():
                    _check_values(target, task, name, outputs[task][name], expected[task][name])
                    difference.add(outputs[task][name], expected[task][name])
    scores = {kind: scorer.compute() for kind, scorer in scorers.items()}
    return {task.name: _parity(target, task, apart[task.name], scores, len(evidence[0])) for task in tasks}


def _modes(tasks: Sequence[Task]) -> list[tuple[str, ...]]:
    """Every subset of tasks but all of them; of more than six tasks the smallest ones."""
    names = [task.name for task in tasks]
    subsets = chain.from_iterable(combinations(names, count) for count in range(1, len(names)))
    return list(islice(subsets, max(_MOST_MODES, len(names))))


def _own_labels(tasks: Sequence[Task], outputs: Outputs, image: Image) -> Batch:
    """The net's own predictions as labels."""
    size = (image.shape[2], image.shape[3])
    labels = {task.name: kind_of(task).pseudo_label(task, outputs[task.name], size) for task in tasks}
    batched = {task.name: kind_of(task).collate(*([part] for part in labels[task.name])) for task in tasks}
    targets, masks = ({name: pair[index] for name, pair in batched.items()} for index in (0, 1))
    return Batch(image, targets, masks)


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


def _parity(
    target: ExportTarget,
    task: Task,
    apart: Mapping[str, Difference],
    scores: Mapping[str, Mapping[str, Mapping[str, float]]],
    images: int,
) -> Parity:
    tolerance, metric = Tolerance(), task.metric.name
    parity = Parity(
        outputs={output.name: apart[output.name].parity(output.unit) for output in task.outputs},
        metric=metric,
        torch=scores["torch"][task.name][metric],
        engine=scores["engine"][task.name][metric],
        images=images,
        metric_allowed=tolerance.float_metric,
        difference_allowed=tolerance.float_error,
    )
    if problem := problem_of(task, parity, False, tolerance):
        raise UserError(f"engine for {target.traits.name}, task {task.name}: {problem}: leave that target out")
    return parity
