"""Several designs in one bundle over one copy of the weights: control after training, at run time.

A static graph cannot cut its weights anew for every call, so each level is an engine of its own, opened at its first
use. What all levels share lies on disk once; in memory each holds its own part, in the layout that its kernels want.

The target `tensorrt` has no engine to open before a board builds one: its levels' graphs are put together there.

Levels are float. An INT8 weight is rounded on a grid that its level's part of the channel spans: of five levels of the
default space at 2 GFLOPs, 5 % of the INT8 bytes are in tensors that are equal, and without sharing they are fewer than
what float levels share.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from safetensors.numpy import save

from edgemtl.bundle import BundleLevel, BundleTarget, Manifest, Parity
from edgemtl.data import Sample, collate
from edgemtl.devices import Device
from edgemtl.errors import UnsupportedError, UserError
from edgemtl.export.bundle import cost_of, manifest_of
from edgemtl.export.checked import folder_of, honoured
from edgemtl.export.parity import Tolerance, check_parity, measure_parity, simulated_run
from edgemtl.export.placing import net_sha256, placing
from edgemtl.export.request import Evidence, Origin, batches, check_samples
from edgemtl.export.shared_weights import Carrier, half_carrier, ir_carrier, onnx_carrier, share_weights
from edgemtl.export.usage import describe_dispatch
from edgemtl.files.disk import write_atomic
from edgemtl.files.onnx import read_onnx
from edgemtl.models import MultiTaskNet, Supernet
from edgemtl.models.quantization import calibrate
from edgemtl.nas.levels import Level, Levels
from edgemtl.progress import Report, note
from edgemtl.runtime import EngineSpec
from edgemtl.targets import ExportTarget, arithmetic_of, emit, find_target, is_runnable, measurer_of, on_board

__all__ = ["check_sharing", "export_levels"]

WEIGHTS_FILE = "weights.safetensors"


@dataclass(frozen=True)
class _Engine:
    """One level's engine as its target builds it: content of `engine.json`, files with weights, and others, by key."""

    spec: EngineSpec
    carriers: Mapping[str, Carrier]
    others: Mapping[str, bytes]

    @property
    def size_bytes(self) -> int:
        """The bytes of all its files."""
        return sum(len(carrier.content) for carrier in self.carriers.values()) + sum(map(len, self.others.values()))


@dataclass(frozen=True)
class _Written:
    """The files of all levels' engine, and the bytes that the models take with and without sharing."""

    files: tuple[str, ...]
    shared_bytes: int
    alone_bytes: int


def _read_onnxruntime(net: MultiTaskNet, spec: EngineSpec, folder: Path) -> _Engine:
    return _Engine(spec, {"model": onnx_carrier(_read(spec, folder, "model"))}, {})


def _read_openvino(net: MultiTaskNet, spec: EngineSpec, folder: Path) -> _Engine:
    model, weights = (spec.file(folder, key).read_bytes() for key in ("model", "weights"))
    return _Engine(spec, {"weights": ir_carrier(model, weights, emit(net))}, {"model": model})


def _read_tensorrt(net: MultiTaskNet, spec: EngineSpec, folder: Path) -> _Engine:
    exact = emit(net)
    return _Engine(spec, {key: half_carrier(_read(spec, folder, key), exact) for key in spec.files}, {})


def _read(spec: EngineSpec, folder: Path, key: str) -> onnx.ModelProto:
    return read_onnx(spec.file(folder, key), external_data=True)


_READERS = {"onnxruntime": _read_onnxruntime, "openvino": _read_openvino, "tensorrt": _read_tensorrt}
"""The targets whose engines can be put together from weights that several share."""


def check_sharing(
    targets: str | Sequence[str], device: Device | None = None, jetpack: str | None = None, dla: bool = False
) -> ExportTarget:
    """The one target that levels are written for, for `device` (None: this machine), a JetPack, and its DLA.

    Raises `UserError` for several, `UnsupportedError` for one whose engines cannot share weights.
    """
    given = [targets] if isinstance(targets, str) else targets
    names = list(dict.fromkeys(find_target(name, device).traits.name for name in given))
    able = " or ".join(f"--target {name}" for name in _READERS)
    for name in names:
        if name not in _READERS:
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
        share = written.shared_bytes / written.alone_bytes
        here = all(is_runnable(target, _precision(level, target)) for level in levels)
        note(
            report,
            f"models and weights: {written.shared_bytes / 1e6:.2f} MB for {len(levels)} levels, "
            f"{share:.0%} of the {written.alone_bytes / 1e6:.2f} MB that they take one by one",
        )
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


def _write(levels: Sequence[Level], supernet: Supernet, target: ExportTarget, engine_folder: Path) -> _Written:
    """Build every level, and write their engines over one file of weights with one `engine.json`."""
    engines = [_built(level, target) for level in levels]
    shared, tensors = share_weights([engine.carriers for engine in engines], supernet)
    keys, contents = dict[str, str](), {WEIGHTS_FILE: save(tensors)}
    options = []
    for number, (engine, level) in enumerate(zip(engines, shared, strict=True)):
        for key, content in {**engine.others, **{key: part.content for key, part in level.items()}}.items():
            suffix = ".bin" if key in level else Path(engine.spec.files[key]).suffix
            keys[f"{key}-{number}"] = name = f"level-{number}-{key}{suffix}"
            contents[name] = content
        parts = {key: [part.as_json() for part in carrier.parts] for key, carrier in level.items()}
        options.append({**engine.spec.options, "shared": parts})
    for name, content in contents.items():
        write_atomic(engine_folder / name, content)
    spec = replace(engines[0].spec, files={**keys, "shared": WEIGHTS_FILE}, options={"levels": options})
    files = (*contents, spec.write(engine_folder).name)
    return _Written(files, sum(map(len, contents.values())), sum(engine.size_bytes for engine in engines))


def _built(level: Level, target: ExportTarget) -> _Engine:
    with tempfile.TemporaryDirectory(prefix="edgemtl-") as alone:
        folder, net = Path(alone), level.candidate.net
        target.build(net, _precision(level, target), level.candidate.ranges, folder)
        return _READERS[target.traits.name](net, EngineSpec.read(folder), folder)


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
