"""Several designs in one bundle over one copy of the weights: control after training, at run time.

A static graph cannot cut its weights anew for every call, so each level is an engine of its own, opened at its first
use. What all levels share lies on disk once; in memory each holds its own part, in the layout that its kernels want.

The target `tensorrt` has no engine to open before a board builds one: its levels' graphs are put together there.

Levels are float. An INT8 weight is rounded on a grid that its level's part of the channel spans: of five levels of the
default space at 2 GFLOPs, 5 % of the INT8 bytes are in tensors that are equal, and without sharing they are fewer than
what float levels share.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from edgemtl.bundle import BundleLevel, BundleTarget, Manifest, Parity
from edgemtl.data import Sample, collate
from edgemtl.devices import Device
from edgemtl.errors import UnsupportedError, UserError
from edgemtl.export.bundle import cost_of, manifest_of
from edgemtl.export.checked import folder_of, honoured
from edgemtl.export.level_files import SHARING, LevelEngine, Written, built_engine, write_engines
from edgemtl.export.parity import Tolerance, check_parity, measure_parity, simulated_run
from edgemtl.export.placing import net_sha256, placing
from edgemtl.export.request import Evidence, Origin, batches, check_samples
from edgemtl.export.shared_weights import SupernetWeights
from edgemtl.export.usage import describe_dispatch
from edgemtl.models import Supernet
from edgemtl.models.quantization import calibrate
from edgemtl.nas.levels import Level, Levels
from edgemtl.progress import Report, note
from edgemtl.targets import ExportTarget, arithmetic_of, emit, find_target, is_runnable, measurer_of, on_board

__all__ = ["check_sharing", "export_levels"]


def check_sharing(
    targets: str | Sequence[str], device: Device | None = None, jetpack: str | None = None, dla: bool = False
) -> ExportTarget:
    """The one target that levels are written for, for `device` (None: this machine), a JetPack, and its DLA.

    Raises `UserError` for several, `UnsupportedError` for one whose engines cannot share weights.
    """
    given = [targets] if isinstance(targets, str) else targets
    names = list(dict.fromkeys(find_target(name, device).traits.name for name in given))
    able = " or ".join(f"--target {name}" for name in SHARING)
    for name in names:
        if name not in SHARING:
            raise UnsupportedError(f"target {name} cannot share the weights of levels: export them with {able}")
    if len(names) > 1:
        raise UserError(f"levels for {' and '.join(names)} asked for: a bundle of levels is for one, give {able}")
    return on_board([find_target(names[0], device)], jetpack, dla)[0]


def export_levels(
    planned: Levels,
    target: ExportTarget,
    folder: Path,
    *,
    evidence: Evidence,
    origin: Origin,
    report: Report,
) -> Manifest:
    """Write the levels as one bundle for a target, each checked against its net; returns its manifest.

    Blocks are float, and the rest of an engine has its design's precision, or FP32 where the target lacks that. As with
    `export_bundle` the folder appears whole or not at all. Raises `UserError` where an engine is too far from its net.
    """
    name, validation = target.traits.name, evidence.validation
    check_samples(planned.levels[0].candidate.net, validation, "validation")
    levels = [_with_ranges(level, target, evidence.calibration) for level in planned.levels]
    first = levels[0].candidate
    digest = net_sha256([level.candidate.net for level in levels], first.design.precision)
    with placing(folder) as bundle:
        bundle.check(digest, [name], len(levels))
        engine_folder = bundle.scratch / folder_of(target)
        engine_folder.mkdir(parents=True)
        note(report, f"building {len(levels)} levels for {name}")
        written = _write(levels, planned.supernet, target, engine_folder)
        checked = [_checked(number, level, target, engine_folder, validation) for number, level in enumerate(levels)]
        here = all(is_runnable(target, _precision(level, target)) for level in levels)
        note(report, written.summary(len(levels)))
        parts = {
            name: BundleTarget(
                folder=folder_of(target),
                files=written.files,
                runtime=target.traits.runtime,
                parity=checked[0].parity,
                device=target.device.name,
                arithmetic=arithmetic_of(target),
                dispatch=describe_dispatch(target, first.net),
                hardware=target.traits.hardware,
                checked="engine" if here else "simulation",
                checked_on=measurer_of(target).arithmetic if here else None,
            )
        }
        origin = replace(origin, design=dict(first.design), blocks=first.design.blocks)
        scratch, precision = bundle.scratch, first.design.precision
        manifest = manifest_of(first.net, digest, precision, parts, checked[0].cost, origin, scratch)
        return bundle.publish(manifest.model_copy(update={"levels": tuple(checked)}))


def _with_ranges(level: Level, target: ExportTarget, calibration: Sequence[Sample]) -> Level:
    """The level with activation ranges where its engine is FP16, which cannot hold all values; else without."""
    if _precision(level, target)["engine"] != "fp16":
        return replace(level, candidate=replace(level.candidate, ranges=None))
    check_samples(level.candidate.net, calibration, "calibration")
    ranges = calibrate(level.candidate.net, batches(calibration))
    return replace(level, candidate=replace(level.candidate, ranges=ranges))


def _write(levels: Sequence[Level], supernet: Supernet, target: ExportTarget, engine_folder: Path) -> Written:
    """Build every level, and write their engines over one file of weights with one `engine.json`."""
    engines = [_built(level, target) for level in levels]
    return write_engines(engines, SupernetWeights(supernet), engine_folder)


def _built(level: Level, target: ExportTarget) -> LevelEngine:
    net = level.candidate.net

    def build(folder: Path) -> object:
        return target.build(net, _precision(level, target), level.candidate.ranges, folder)

    return built_engine(target, build, lambda: emit(net))


def _precision(level: Level, target: ExportTarget) -> dict[str, str]:
    """The engine's precision; blocks are float."""
    return honoured({"engine": level.candidate.design.precision["engine"]}, target.traits)


def _checked(
    number: int, level: Level, target: ExportTarget, engine_folder: Path, validation: Sequence[Sample]
) -> BundleLevel:
    """Manifest entry of a level whose engine was compared with its net, as far as that is simulated or runs here."""
    net, precision, ranges = level.candidate.net, _precision(level, target), level.candidate.ranges
    names = [task.name for task in net.tasks]
    dispatch = describe_dispatch(target, net)
    parity: dict[str, Parity] = {}
    if is_runnable(target, precision):
        with closing(measurer_of(target).open(engine_folder, modes=[names], level=number)) as session:
            parity = measure_parity(net, session.run, validation)
    elif dispatch is None or dispatch.capacity is None:
        parity = measure_parity(net, simulated_run(net, precision, ranges, target), validation)
    if parity:
        parity = check_parity(net, target, precision, ranges, parity, collate([validation[0]]).image, Tolerance())
    return BundleLevel(
        name=level.name,
        budget=level.budget,
        preference=dict(level.preference),
        design=dict(level.candidate.design),
        cost=cost_of(net, precision, None, target),
        parity=parity,
    )
