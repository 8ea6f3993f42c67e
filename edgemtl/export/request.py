"""A request for an export: a net, the engines to make, and the images to make and check them with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from pydantic import JsonValue

from edgemtl.blocks import BlockRecord
from edgemtl.data import Sample, collate
from edgemtl.devices import HOST, Device, any_processor, load_device
from edgemtl.errors import UserError
from edgemtl.export.parity import Tolerance
from edgemtl.export.usage import dropping_nothing
from edgemtl.models import MultiTaskNet
from edgemtl.models.quantization import Ranges, calibrate
from edgemtl.progress import Report, note
from edgemtl.targets import ExportTarget, find_target, on_board, within_budgets

__all__ = ["Evidence", "ExportRequest", "ExportedNet", "Origin", "batches", "check_samples"]


@dataclass(frozen=True)
class ExportRequest:
    """Which engines are wanted: of `targets` (a string is one), for `device` (None: this machine).

    With `exact` no target drops tokens of experts: where its capacity might, every expert takes every token,
    so that it computes as many. With `portable` engines are right on every processor; what that costs in quality stands
    in the manifest. `jetpack` is the release whose TensorRT builds the engines of the target `tensorrt` (None: any);
    with `dla` they run on the DLA of the device where it takes their layers. Projects for FPGAs keep `budgets` in
    resources, those of a run.
    """

    targets: str | Sequence[str] = ()
    device: Device | None = None
    exact: bool = False
    portable: bool = False
    jetpack: str | None = None
    dla: bool = False
    budgets: tuple[str, ...] = ()

    def find_targets(self, net: MultiTaskNet | None = None) -> list[ExportTarget]:
        """The exporters, each once; raises `UserError` where there is none, or one cannot be `exact` for `net`.

        A net without experts need not be given.
        """
        names = [self.targets] if isinstance(self.targets, str) else self.targets
        device = self.device or load_device(HOST)
        device = any_processor(device) if self.portable else device
        targets = [within_budgets(find_target(name, device), self.budgets) for name in dict.fromkeys(names)]
        if not targets:
            raise UserError("no target was given: name at least one, `edgemtl targets` lists them")
        targets = on_board(targets, self.jetpack, self.dla)
        return targets if net is None or not self.exact else [dropping_nothing(target, net) for target in targets]


@dataclass(frozen=True)
class Evidence:
    """Images that engines are made and checked with.

    `calibration` images give the ranges of INT8 blocks unless `ranges` are given; `validation` images are what parity
    is checked on, within `tolerance`, and what the tokens of experts are counted on.
    """

    calibration: Sequence[Sample]
    validation: Sequence[Sample]
    ranges: Ranges | None = None
    tolerance: Tolerance = Tolerance()  # noqa: RUF009 (frozen)


@dataclass(frozen=True)
class Origin:
    """Where a net comes from, for the manifest: its space, family, design and blocks, the run and seed, the data.

    `net` is the file or function of one that no run made.
    """

    space: str = ""
    family: str = ""
    design: Mapping[str, int | float | str | bool] = field(default_factory=dict)
    run: str | None = None
    seed: int | None = None
    data: str | Mapping[str, JsonValue] | None = None
    blocks: tuple[BlockRecord, ...] = ()
    net: str | None = None


@dataclass(frozen=True)
class ExportedNet:
    """The source and reference of every engine of a bundle, and the device that it is for.

    `precision` is as it was asked for: a target honours what it can.
    """

    net: MultiTaskNet
    precision: Mapping[str, str]
    ranges: Ranges | None
    device: Device
    samples: Sequence[Sample]
    tolerance: Tolerance

    @classmethod
    def of(
        cls, net: MultiTaskNet, precision: Mapping[str, str], request: ExportRequest, evidence: Evidence, report: Report
    ) -> ExportedNet:
        """The net in evaluation mode, with the ranges that it needs; `UserError` where images do not fit it."""
        check_samples(net, evidence.validation, "validation")
        net.eval()
        ranges = evidence.ranges
        needed = "int8" in precision.values() or precision.get("engine") == "fp16"
        if ranges is None and (needed or any(target.traits.needs_ranges for target in request.find_targets(net))):
            check_samples(net, evidence.calibration, "calibration")
            note(report, f"calibrating on {len(evidence.calibration)} images")
            ranges = calibrate(net, batches(evidence.calibration))
        device = request.device or load_device(HOST)
        return cls(net, precision, ranges, device, evidence.validation, evidence.tolerance)


def check_samples(net: MultiTaskNet, samples: Sequence[Sample], what: str) -> None:
    """`UserError` where there is no `what` image, or one of another size than the net reads."""
    if not samples:
        raise UserError(f"no {what} sample was given: a bundle is checked on real images")
    if samples[0].image.shape[:2] != tuple(net.input_size):
        height, width = samples[0].image.shape[:2]
        wanted = " x ".join(str(side) for side in net.input_size)
        raise UserError(f"{what} images are {height} x {width}, the net reads {wanted}: open the data in that size")


def batches(samples: Sequence[Sample], size: int = 16) -> Iterator[torch.Tensor]:
    """Normalised images (N, 3, H, W), up to `size` at a time."""
    for start in range(0, len(samples), size):
        chosen = [samples[index] for index in range(start, min(start + size, len(samples)))]
        yield torch.from_numpy(collate(chosen).image)
