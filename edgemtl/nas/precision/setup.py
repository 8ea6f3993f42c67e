"""Setting up a search: net, target, photos and limits, opened and checked; nothing is written yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from edgemtl.devices import load_device
from edgemtl.errors import UserError
from edgemtl.models.quantization import Ranges
from edgemtl.nas.precision.bench import Bench, Image
from edgemtl.nas.precision.request import PrecisionRequest, agreements_allowed, parse_limits, usable_target
from edgemtl.own import (
    INT8,
    Declaration,
    OwnNet,
    Photos,
    Structure,
    calibrate_model,
    expected_outputs,
    image_input,
    net_digest,
    read_photos,
    ready_for_rounding,
    resolve,
    rounded_blocks,
    task_model,
)
from edgemtl.progress import Progress, Report, note
from edgemtl.runtime import Outputs, load_image, prepare_image
from edgemtl.targets import ExportTarget, TaskModel, find_target, target_of
from edgemtl.units import Budget, parse_budget

__all__ = ["TEST_IMAGES", "Setup", "set_up"]

DEFAULT_TARGET = "onnxruntime"
VALIDATION_IMAGES, TEST_IMAGES = 32, 64


@dataclass(frozen=True)
class Setup:
    """Everything that a request names.

    `blocks` are those that INT8 changes, none where the target has no INT8; `allowed` is what each task may lose;
    `config` is what a run must be resumed with. Of a narrower form of the net `name` is what it is called, and
    `channels` what groups of it keep.
    """

    bench: Bench
    structure: Structure
    blocks: tuple[str, ...]
    photos: Photos
    budgets: tuple[Budget, ...]
    allowed: Mapping[str, float]
    digest: str
    config: Mapping[str, Any]
    read: Callable[[Path], Image]
    expect: Callable[[Image], Outputs]
    name: str = ""
    channels: Mapping[str, int] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether it is of the net as it was given."""
        return not self.name

    def calibrate(self, report: Report) -> Ranges:
        """Ranges of the net over the photos that calibrate."""
        note(report, f"calibrating {self.name or 'the net'} on {len(self.photos.calibration)} images")
        images = map(self.read, self.photos.calibration)
        return calibrate_model(ready_for_rounding(self.bench.model), images, len(self.photos.calibration))

    def test_images(self) -> Iterator[tuple[Image, Outputs]]:
        """The photos that are reported on, one by one, with what the net itself gives."""
        for path in self.photos.test[:TEST_IMAGES]:
            image = self.read(path)
            yield image, self.expect(image)

    def of(self, net: OwnNet, declaration: Declaration, name: str, channels: Mapping[str, int]) -> Setup:
        """The same of a narrower form of the net, which is compared with the net as it was given."""
        resolved = resolve(net, declaration)
        model, structure = task_model(net, resolved)
        digest = net_digest(model, image_input(net, resolved), resolved.tasks)
        bench, blocks = replace(self.bench, model=model), eight_bit_blocks(model, self.bench.target)
        return replace(
            self, bench=bench, structure=structure, blocks=blocks, digest=digest, name=name, channels=channels
        )


def eight_bit_blocks(model: TaskModel, target: ExportTarget) -> tuple[str, ...]:
    """The blocks of a net that INT8 changes on a target, in order."""
    return rounded_blocks(ready_for_rounding(model)) if INT8 in target.traits.block_precisions else ()


def set_up(request: PrecisionRequest, report: Report) -> Setup:
    """Open and check everything; raises `UserError` for anything that cannot be understood, used or timed here."""
    resolved = resolve(request.net, request.declaration)
    target = _target(request)
    budgets = parse_limits(request.budgets, target, resolved.tensors)
    allowed = agreements_allowed(request.floors, resolved.tasks)
    measurer = usable_target(target, budgets)
    photos = read_photos(request.data)
    model, structure = task_model(request.net, resolved)
    blocks = eight_bit_blocks(model, target)
    if not blocks and len(target.traits.engine_precisions) == 1:
        raise UserError(f"{request.net.name} has no layer that target {target.traits.name} could run in less than FP32")
    about = image_input(request.net, resolved)

    def read(path: Path) -> Image:
        return prepare_image(load_image(path), request.net.size, about)

    def expect(image: Image) -> Outputs:
        return expected_outputs(request.net, resolved, image)

    images, expected = _decided_on(photos, read, expect, report)
    scopes = ("", *dict.fromkeys(budget.task for budget in budgets if budget.task))
    bench = Bench(model, resolved.tasks, target, measurer, images, expected, scopes, request.threads)
    digest = net_digest(model, about, resolved.tasks)
    config = _config(request, target, photos, digest)
    return Setup(bench, structure, blocks, photos, budgets, allowed, digest, config, read, expect)


def _target(request: PrecisionRequest) -> ExportTarget:
    """The requested target, else that of the runtime that a budget names, else ONNX Runtime."""
    named = (parse_budget(text).runtime for text in request.budgets)
    runtime = next((name for name in named if name), None)
    name = request.target or (target_of(runtime) if runtime else None) or DEFAULT_TARGET
    return find_target(name, load_device(request.device))


def _decided_on(
    photos: Photos, read: Callable[[Path], Image], expect: Callable[[Image], Outputs], report: Report
) -> tuple[list[Image], list[Outputs]]:
    """The images that decide, and what the net itself gives for each."""
    files = photos.validation[:VALIDATION_IMAGES]
    images, expected = list[Image](), list[Outputs]()
    for number, path in enumerate(files):
        report(Progress("float net", number, len(files)))
        images.append(read(path))
        expected.append(expect(images[-1]))
    report(Progress("float net", len(files), len(files)))
    return images, expected


def _config(request: PrecisionRequest, target: ExportTarget, photos: Photos, digest: str) -> dict[str, Any]:
    return {
        "net": request.net.name,
        "net_sha256": digest,
        "data": photos.fingerprint,
        "target": target.traits.name,
        "device": target.device.as_json(),
        "budgets": list(request.budgets),
        "floors": list(request.floors),
        "threads": request.threads,
        "finetune": asdict(request.tuning),
    }
