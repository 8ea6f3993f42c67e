"""From a net of one's own to a bundle: engines for every target, each mode checked against the net itself in float."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from edgemtl.bundle import BundleInput, BundleTarget, Manifest, Parity
from edgemtl.errors import UserError
from edgemtl.export.bundle import make_manifest
from edgemtl.export.checked import folder_of
from edgemtl.export.own_contract import check_images, described_tasks, model_cost, writes_models
from edgemtl.export.own_parity import Reference, check_engine, checked_modes
from edgemtl.export.placing import placing
from edgemtl.export.request import ExportRequest, Origin
from edgemtl.own import (
    FLOAT,
    INT8,
    Declaration,
    OwnImages,
    OwnNet,
    OwnPrecision,
    block_records,
    calibrate_model,
    expected_outputs,
    image_input,
    in_precision,
    named_precision,
    net_digest,
    open_own_images,
    read_precision,
    ready_for_rounding,
    resolve,
    searched_net,
    task_model,
)
from edgemtl.progress import Report, note, silent
from edgemtl.runtime import EngineSpec, prepare_image
from edgemtl.targets import ExportTarget, ModelTarget, TaskModel, arithmetic_of, is_runnable, measurer_of, needs_of
from edgemtl.tasks import Task

__all__ = ["Rounding", "export_own_net"]


@dataclass(frozen=True)
class Rounding:
    """The precision that engines are wanted in, by its name, and the images that INT8 is calibrated on.

    `name` is "float", "int8" or "int4" of every block, an engine precision of the targets ("bf16"), or the folder of a
    search for the same net. `data` is a folder of photos, one third of which calibrates, the last third being what
    engines are compared on where no pictures are given; or a data set, whose test images and labels score each task.
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
    modes. A task's metric is by labels, where there are some, else that of the engine against the net's predictions; of
    less than FP32 without labels the agreement with the net in float is recorded. What is low of either is noted. Where
    a search removed channels, engines are of what it left, and compared with that; agreement is with the given net.
    Raises `UserError` where the declaration does not fit the net, a picture cannot be read, the folder holds something
    else, or an engine in float is too far from the net; `UnsupportedError` for a target that writes no engine of such a
    net.
    """
    whole, resolved = net, resolve(net, declaration)
    whole_outputs = partial(expected_outputs, whole, resolved)
    if rounding.run is not None:
        net, declaration = searched_net(rounding.run, net, declaration)
        resolved = resolve(net, declaration)
    targets = [writes_models(target) for target in request.find_targets()]
    model, structure = task_model(net, resolved)
    about = image_input(net, resolved)
    given = None if rounding.data is None else open_own_images(rounding.data, net.size, resolved.tasks)
    own_digest = net_digest(model, about, resolved.tasks)
    precision = _precision(rounding, model, targets, about, given, own_digest, report)
    digest = hashlib.sha256(own_digest.encode() + precision.digest).hexdigest()
    checked = check_images(pictures, given)
    images = [prepare_image(picture, net.size, about) for picture in checked.pictures]
    expected = [expected_outputs(net, resolved, image) for image in images]
    agreed = expected if net is whole else [whole_outputs(image) for image in images]
    reference = Reference(images, expected, agreed, checked.labels)
    with placing(folder) as position:
        position.check(digest, [target.traits.name for target in targets])
        parts = {}
        for target in targets:
            note(report, f"building for {target.traits.name}")
            scratch = position.scratch / folder_of(target)
            written = in_precision(model, precision, target)
            made = _written(target, written, precision, resolved.tasks, scratch, reference, report)
            parts[target.traits.name] = made
        blocks = block_records(model, structure, precision.values)
        origin = Origin(family="own", data=checked.about, blocks=blocks, net=net.name)
        contract = about, described_tasks(resolved, net.size, expected[0])
        cost = model_cost(in_precision(model, precision, targets[0]), report)
        manifest = make_manifest(contract, digest, precision.values, parts, cost, origin, position.scratch)
        return position.publish(manifest)


def _precision(
    rounding: Rounding,
    model: TaskModel,
    targets: Sequence[ExportTarget],
    about: BundleInput,
    given: OwnImages | None,
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
    if given is None:
        raise UserError(f"--precision {rounding.name} needs photos to calibrate on: give a folder of some with --data")
    note(report, f"calibrating on {len(given.calibration)} images")
    images = (prepare_image(picture, (about.height, about.width), about) for picture in given.calibration)
    return OwnPrecision(values, calibrate_model(ready_for_rounding(model), images, len(given.calibration)))


def _written(
    target: ExportTarget,
    model: TaskModel,
    precision: OwnPrecision,
    tasks: Sequence[Task],
    folder: Path,
    reference: Reference,
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
            parity = check_engine(target, session, tasks, reference, precision.is_reduced, report)
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
        modes_checked=len(checked_modes(tasks)) if runnable else 0,
    )
