"""Setting up a search: net, target, images and limits, opened and checked; nothing is written yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.devices import device_of
from edgemtl.errors import UserError
from edgemtl.models.quantization import Ranges
from edgemtl.nas.precision.bench import Bench
from edgemtl.nas.precision.floors import Floors, Metrics, judged_tasks, parse_floors
from edgemtl.nas.precision.request import PrecisionRequest, parse_limits, terms_of, usable_target
from edgemtl.nas.precision.scoring import Example, Examples, Image, Tally, by_agreement
from edgemtl.own import (
    INT4,
    INT8,
    Declaration,
    OwnImages,
    OwnNet,
    Resolved,
    Seen,
    Spread,
    Structure,
    calibrate_model,
    expected_outputs,
    four_bit_blocks,
    image_input,
    is_data_set,
    net_digest,
    open_own_images,
    ready_for_rounding,
    resolve,
    rounded_blocks,
    task_model,
)
from edgemtl.progress import Progress, Report, note
from edgemtl.runtime import prepare_image
from edgemtl.targets import ExportTarget, TaskModel, find_target, target_of
from edgemtl.units import Budget, parse_budget, parse_preference

__all__ = ["Setup", "set_up"]

DEFAULT_TARGET = "onnxruntime"
VALIDATION_PHOTOS, TEST_PHOTOS = 32, 64
"""Images that engines are compared with the float net on, at most; those that have labels all count."""


@dataclass(frozen=True)
class Setup:
    """Everything that a request names.

    `eight` are the blocks that INT8 changes and `four` those that INT4 changes, none where the target has not these;
    `prepare` makes of a picture what the net
    reads; `tested` are the images that are reported on; `config` is what a run must be resumed with. Of a narrower form
    of the net `name` is what it is called, and `channels` what groups of it keep.
    """

    bench: Bench
    structure: Structure
    eight: tuple[str, ...]
    four: tuple[str, ...]
    images: OwnImages
    budgets: tuple[Budget, ...]
    floors: Floors
    digest: str
    config: Mapping[str, Any]
    prepare: Callable[[NDArray[np.uint8]], Image]
    tested: Sequence[Example]
    name: str = ""
    channels: Mapping[str, int] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether it is of the net as it was given."""
        return not self.name

    @property
    def blocks(self) -> tuple[str, ...]:
        """The blocks that less than the engine's precision changes, in order."""
        chosen = {*self.eight, *self.four}
        return tuple(block.name for block in self.structure.blocks if block.name in chosen)

    def calibrate(self, report: Report) -> Ranges:
        """Ranges of the net over the images that calibrate."""
        pictures = self.images.calibration
        note(report, f"calibrating {self.name or 'the net'} on {len(pictures)} images")
        return calibrate_model(ready_for_rounding(self.bench.model), map(self.prepare, pictures), len(pictures))

    def of(self, net: OwnNet, declaration: Declaration, name: str, channels: Mapping[str, int]) -> Setup:
        """The same of a narrower form of the net, which is compared with the net as it was given."""
        resolved = resolve(net, declaration)
        model, structure = task_model(net, resolved)
        digest = net_digest(model, image_input(net, resolved), resolved.tasks)
        eight, four = _reduced_blocks(model, self.bench.target)
        return replace(
            self,
            bench=replace(self.bench, model=model),
            structure=structure,
            eight=eight,
            four=four,
            digest=digest,
            name=name,
            channels=channels,
        )


def _reduced_blocks(model: TaskModel, target: ExportTarget) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The blocks of a net that INT8 changes on a target, and those that INT4 does, in order."""
    ready, traits = ready_for_rounding(model), target.traits
    eight = rounded_blocks(ready) if INT8 in traits.block_precisions else ()
    return eight, four_bit_blocks(ready) if INT4 in traits.weight_precisions else ()


def set_up(request: PrecisionRequest, report: Report) -> Setup:
    """Open and check everything; raises `UserError` for anything that cannot be understood, used or timed here."""
    resolved = resolve(request.net, request.declaration)
    target = _target(request)
    budgets = parse_limits(request.budgets, target, resolved.tensors)
    floors = parse_floors(request.floors, resolved.tasks, is_data_set(request.data))
    names = [task.name for task in resolved.tasks]
    preference = parse_preference(request.preference, names) if request.preference else dict.fromkeys(names, 1.0)
    measurer = usable_target(target, budgets)
    images = open_own_images(request.data, request.net.size, resolved.tasks)
    model, structure = task_model(request.net, resolved)
    eight, four = _reduced_blocks(model, target)
    if not eight and not four and len(target.traits.engine_precisions) == 1:
        raise UserError(f"{request.net.name} has no layer that target {target.traits.name} could run in less than FP32")
    about = image_input(request.net, resolved)

    def prepare(picture: NDArray[np.uint8]) -> Image:
        return prepare_image(picture, request.net.size, about)

    def compared(seen: Seen) -> Example:
        image = prepare(seen[0])
        return Example(image, expected_outputs(request.net, resolved, image))

    def labelled(seen: Seen) -> Example:
        assert seen[1] is not None
        return Example(prepare(seen[0]), seen[1])

    near = _in_memory(Examples(Spread(images.validation, VALIDATION_PHOTOS), compared), report)
    judged, tested = near, Examples(Spread(images.test, TEST_PHOTOS), compared)
    baseline = by_agreement({task.name: 1.0 for task in resolved.tasks})
    if images.labelled:
        judged, tested = Examples(images.validation, labelled), Examples(images.test, labelled)
        baseline = _baseline(request.net, resolved, judged, report)
    limits = Floors(judged_tasks(resolved.tasks, images.labelled), floors, baseline, preference)
    scopes = ("", *dict.fromkeys(budget.task for budget in budgets if budget.task))
    bench = Bench(model, resolved.tasks, target, measurer, near, judged, scopes, request.threads)
    digest = net_digest(model, about, resolved.tasks)
    config = _config(request, target, images, digest)
    return Setup(bench, structure, eight, four, images, budgets, limits, digest, config, prepare, tested)


def _target(request: PrecisionRequest) -> ExportTarget:
    """The requested target, else that of the runtime that a budget names, else ONNX Runtime."""
    budgets = [parse_budget(text) for text in request.budgets]
    device = device_of(budgets, request.device)
    runtime = next((budget.runtime for budget in budgets if budget.runtime), None)
    name = request.target or (target_of(runtime) if runtime else None) or DEFAULT_TARGET
    return find_target(name, device)


def _in_memory(examples: Sequence[Example], report: Report) -> Sequence[Example]:
    """Images that engines are compared with the net itself on, with what it gives for each."""
    made = list[Example]()
    for number, example in enumerate(examples):
        report(Progress("float net", number, len(examples)))
        made.append(example)
    report(Progress("float net", len(examples), len(examples)))
    return made


def _baseline(net: OwnNet, resolved: Resolved, judged: Sequence[Example], report: Report) -> Metrics:
    """Scores of the net itself on the images that decide."""
    tally = Tally(resolved.tasks)
    for number, example in enumerate(judged, 1):
        report(Progress("float net", number, len(judged), "scored"))
        tally.update(example, expected_outputs(net, resolved, example.image))
    return tally.compute()


def _config(request: PrecisionRequest, target: ExportTarget, images: OwnImages, digest: str) -> dict[str, Any]:
    return {
        **terms_of(vars(request)),
        "net": request.net.name,
        "net_sha256": digest,
        "data": images.fingerprint,
        "target": target.traits.name,
        "device": target.device.as_json(),
    }
