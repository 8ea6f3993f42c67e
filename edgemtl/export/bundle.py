"""From a static net to a bundle: engines for every target, checked against the net, or nothing at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import torch
from pydantic import JsonValue

from edgemtl.blocks import BlockRecord
from edgemtl.bundle import (
    BundleCost,
    BundleExperts,
    BundleInput,
    BundleLevel,
    BundleTarget,
    Manifest,
    Provenance,
    describe_task,
)
from edgemtl.data import Sample, collate
from edgemtl.devices import HOST, Device, any_processor, load_device
from edgemtl.environment import environment
from edgemtl.errors import UserError
from edgemtl.export.checked import ExportedNet, checked, folder_of, honoured
from edgemtl.export.parity import MakeScorer, Tolerance
from edgemtl.export.placing import net_sha256, placing
from edgemtl.export.usage import describe_experts, dropping_nothing
from edgemtl.files.disk import sha256, write_atomic
from edgemtl.files.images import IMAGE_MEAN, IMAGE_STD
from edgemtl.models import MultiTaskNet, expert_usage
from edgemtl.models.quantization import Ranges, calibrate
from edgemtl.profiling import count_graph
from edgemtl.progress import Report, note, silent
from edgemtl.results import PathCost
from edgemtl.runtime import EngineSpec
from edgemtl.targets import ExportTarget, emit, find_target, quantize
from edgemtl.train import Scorer

__all__ = ["Origin", "export_bundle", "export_onnx"]

FP32 = {"engine": "fp32"}
"""The precision of an engine without INT8."""


@dataclass(frozen=True)
class Origin:
    """Where a net comes from, for the manifest: its space, family, design and blocks, the run and seed, the data."""

    space: str = ""
    family: str = ""
    design: Mapping[str, int | float | str | bool] = field(default_factory=dict)
    run: str | None = None
    seed: int | None = None
    data: str | Mapping[str, JsonValue] | None = None
    blocks: tuple[BlockRecord, ...] = ()


def export_onnx(net: MultiTaskNet, path: Path) -> Path:
    """Write the FP32 ONNX model of a static net (opset 17, batch 1, one output a task) to `path`, atomically.

    Raises `UnsupportedError` naming a layer without an ONNX operator.
    """
    write_atomic(path, emit(net).SerializeToString(deterministic=True))
    return path


def export_bundle(
    net: MultiTaskNet,
    precision: Mapping[str, str] | str,
    targets: str | Sequence[str],
    folder: Path,
    *,
    calibration: Sequence[Sample],
    validation: Sequence[Sample],
    ranges: Ranges | None = None,
    origin: Origin | None = None,
    tolerance: Tolerance | None = None,
    make_scorer: MakeScorer = Scorer,
    report: Report = silent,
    exact: bool = False,
    device: Device | None = None,
    portable: bool = False,
) -> Manifest:
    """Write a bundle of `net` with an engine for each of `targets` to `folder`, and return its manifest.

    `precision` maps "engine" and blocks to precisions, or is one for the engine alone ("fp32"). A target that lacks
    the engine's precision, or INT8, runs that part in FP32: its `engine.json` tells. `calibration` images give the
    ranges of INT8 blocks unless `ranges` are given; `validation` images are what parity is checked on and what the
    tokens of experts are counted on. With `exact` no target drops any: where a target's capacity might, every expert
    has a place for every token, so that it computes as many. Engines are made for `device` (None: this machine), or
    with `portable` so that they are right on every processor; what that costs in quality stands in the manifest.

    The folder appears whole or not at all: everything is written beside it and renamed at the end. To an existing
    bundle of the same net the engines are added, in place of those of the same target; whatever else it holds stays.
    Returns the manifest of the whole bundle. Raises `UserError` where the folder holds something else than a bundle, or
    a bundle of another net, or where another process writes it; where samples do not fit the net, where an engine is
    further from the net than `tolerance` allows, naming task and block, and where a target cannot be `exact`;
    `UnsupportedError` and `MissingDependencyError` by the targets.
    """
    wanted = {"engine": precision} if isinstance(precision, str) else dict(precision)
    device = device or load_device(HOST)
    found = find_targets(targets, any_processor(device) if portable else device, net, exact)
    check_samples(net, validation, "validation")
    ranges = ranges_of(net, wanted, ranges, calibration, report)
    subject = ExportedNet(net, wanted, ranges, device, validation, tolerance or Tolerance(), make_scorer)
    digest = net_sha256([net], wanted)

    def build(target: ExportTarget, position: Path) -> list[Path]:
        return target.build(net, honoured(wanted, target.traits), ranges, position)

    with placing(folder) as position:
        position.check(digest, [target.traits.name for target in found])
        scratch, parts = position.scratch, {}
        for target in found:
            note(report, f"building for {target.traits.name}")
            parts[target.traits.name] = _written(subject, target, scratch / folder_of(target), build)
        usage = expert_usage(net, batches(validation))
        experts = describe_experts(net, usage, honoured(wanted, found[0].traits), found)
        cost = cost_of(net, wanted, ranges, found[0])
        made = manifest_of(net, digest, wanted, parts, cost, origin or Origin(), scratch, experts=experts)
        return position.publish(made)


def _written(
    subject: ExportedNet, target: ExportTarget, folder: Path, build: Callable[[ExportTarget, Path], list[Path]]
) -> BundleTarget:
    folder.mkdir(parents=True)
    files = tuple(path.as_posix() for path in build(target, folder))
    spec = EngineSpec.read(folder)
    about = checked(subject, target, folder, build)
    return BundleTarget(folder=folder_of(target), files=files, flags=spec.flags, options=spec.runtime_options, **about)


def find_targets(names: str | Sequence[str], device: Device, net: MultiTaskNet, exact: bool) -> list[ExportTarget]:
    """The exporters of these names (a string is one) for a device, each once.

    With `exact` none of them drops tokens of `net`.
    """
    found = [find_target(name, device) for name in dict.fromkeys([names] if isinstance(names, str) else names)]
    if not found:
        raise UserError("no target was given: name at least one, `edgemtl targets` lists them")
    return [dropping_nothing(target, net) for target in found] if exact else found


def ranges_of(
    net: MultiTaskNet,
    precision: Mapping[str, str],
    ranges: Ranges | None,
    calibration: Sequence[Sample],
    report: Report,
) -> Ranges | None:
    """The ranges that INT8 needs, from calibration images where none are given; the net is in evaluation mode then."""
    net.eval()
    if "int8" not in precision.values() or ranges is not None:
        return ranges
    check_samples(net, calibration, "calibration")
    note(report, f"calibrating on {len(calibration)} images")
    return calibrate(net, batches(calibration))


def check_samples(net: MultiTaskNet, samples: Sequence[Sample], what: str) -> None:
    if not samples:
        raise UserError(f"no {what} sample was given: a bundle is checked on real images")
    if samples[0].image.shape[:2] != tuple(net.input_size):
        height, width = samples[0].image.shape[:2]
        wanted = " x ".join(str(side) for side in net.input_size)
        raise UserError(f"{what} images are {height} x {width}, the net reads {wanted}: open the data in that size")


def batches(samples: Sequence[Sample], size: int = 16) -> Iterator[torch.Tensor]:
    for start in range(0, len(samples), size):
        chosen = [samples[index] for index in range(start, min(start + size, len(samples)))]
        yield torch.from_numpy(collate(chosen).image)


def cost_of(net: MultiTaskNet, precision: Mapping[str, str], ranges: Ranges | None, target: ExportTarget) -> BundleCost:
    model = quantize(emit(net), honoured(precision, target.traits), ranges or Ranges({}), target.scheme)
    cost = count_graph(model)
    if not cost.total.exact:
        raise UserError(f"the net cannot be counted: {'; '.join(cost.notes)}")
    return BundleCost(
        flops=cost.total.flops,
        params=cost.total.params,
        weight_bytes=cost.total.weight_bytes,
        paths={task: PathCost(flops=path.flops, params=path.params) for task, path in cost.paths.items()},
    )


def manifest_of(
    net: MultiTaskNet,
    digest: str,
    precision: Mapping[str, str],
    parts: Mapping[str, BundleTarget],
    cost: BundleCost,
    origin: Origin,
    scratch: Path,
    *,
    experts: Sequence[BundleExperts] = (),
    levels: Sequence[BundleLevel] = (),
) -> Manifest:
    height, width = net.input_size
    names = [task.name for task in net.tasks]
    modes = dict.fromkeys([tuple(names), *((task,) for task in names)])
    files = sorted(path for path in scratch.rglob("*") if path.is_file())
    data = dict(origin.data) if isinstance(origin.data, Mapping) else origin.data
    return Manifest(
        name=scratch.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        space=origin.space,
        family=origin.family,
        design=dict(origin.design),
        precision=dict(precision),
        input=BundleInput(height=height, width=width, mean=IMAGE_MEAN, std=IMAGE_STD),
        tasks=tuple(describe_task(task, (height, width)) for task in net.tasks),
        modes=tuple(modes),
        targets=dict(parts),
        files={path.relative_to(scratch).as_posix(): sha256(path) for path in files},
        cost=cost,
        experts=tuple(experts),
        provenance=Provenance(
            environment=environment(), net_sha256=digest, run=origin.run, seed=origin.seed, data=data
        ),
        levels=tuple(levels),
        blocks=origin.blocks,
    )
