"""From a static net to a bundle: engines for every target, checked against the net, or nothing at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

from edgemtl.bundle import (
    BundleCost,
    BundleInput,
    BundleTarget,
    BundleTask,
    Manifest,
    Provenance,
)
from edgemtl.environment import environment
from edgemtl.errors import UserError
from edgemtl.export.checked import checked, folder_of, honoured
from edgemtl.export.placing import net_sha256, placing
from edgemtl.export.request import Evidence, ExportedNet, ExportRequest, Origin, batches
from edgemtl.export.task_contract import describe_task
from edgemtl.export.usage import describe_experts
from edgemtl.files.disk import write_atomic
from edgemtl.files.images import IMAGE_MEAN, IMAGE_STD
from edgemtl.files.seals import sha256
from edgemtl.models import MultiTaskNet, expert_usage
from edgemtl.models.quantization import Ranges
from edgemtl.profiling import Cost, count_graph
from edgemtl.progress import Report, note, silent
from edgemtl.results import PathCost
from edgemtl.runtime import EngineSpec
from edgemtl.targets import EmulatingTarget, ExportTarget, emit, quantize

__all__ = ["export_bundle", "export_onnx"]

FP32 = {"engine": "fp32"}
"""The precision of an engine without INT8."""


def export_onnx(net: MultiTaskNet, path: Path) -> Path:
    """Write the FP32 ONNX model of a static net (opset 17, batch 1) to `path`, atomically.

    A task's only output is called like the task, several are called `TASK.OUTPUT`.

    Raises `UnsupportedError` naming a layer without an ONNX operator.
    """
    write_atomic(path, emit(net).SerializeToString(deterministic=True))
    return path


def export_bundle(
    net: MultiTaskNet,
    precision: Mapping[str, str] | str,
    request: ExportRequest,
    folder: Path,
    evidence: Evidence,
    origin: Origin = Origin(),  # noqa: B008 (frozen)
    report: Report = silent,
) -> Manifest:
    """Write a bundle of `net` with the engines that are requested to `folder`, and return its manifest.

    `precision` maps "engine" and blocks to precisions, or is one for the engine alone ("fp32"). A target that lacks
    the engine's precision, or INT8, runs that part in FP32: its `engine.json` tells.

    The folder appears whole or not at all: everything is written beside it and renamed at the end. To an existing
    bundle of the same net the engines are added, in place of those of the same target; whatever else it holds stays.
    Returns the manifest of the whole bundle. Raises `UserError` where the folder holds something else than a bundle, or
    a bundle of another net, or where another process writes it; where samples do not fit the net, where an engine is
    further from the net than is tolerated, naming task and block, and where a target cannot be exact;
    `UnsupportedError` and `MissingDependencyError` by the targets.
    """
    wanted = {"engine": precision} if isinstance(precision, str) else dict(precision)
    targets = request.find_targets(net)
    subject = ExportedNet.of(net, wanted, request, evidence, report)
    digest = net_sha256([net], wanted)

    def build(target: ExportTarget, position: Path) -> list[Path]:
        return target.build(net, honoured(wanted, target.traits), subject.ranges, position)

    with placing(folder) as position:
        position.check(digest, [target.traits.name for target in targets])
        scratch, parts = position.scratch, {}
        for target in targets:
            note(report, f"building for {target.traits.name}")
            parts[target.traits.name] = _written(subject, target, scratch / folder_of(target), build)
            if words := EngineSpec.read(scratch / folder_of(target)).options.get("left_out"):
                note(report, words)
        usage = expert_usage(net, batches(subject.samples))
        experts = describe_experts(net, usage, honoured(wanted, targets[0].traits), targets)
        cost = cost_of(net, wanted, subject.ranges, targets[0])
        manifest = manifest_of(net, digest, wanted, parts, cost, origin, scratch)
        return position.publish(manifest.model_copy(update={"experts": experts}))


def _written(
    subject: ExportedNet, target: ExportTarget, folder: Path, build: Callable[[ExportTarget, Path], list[Path]]
) -> BundleTarget:
    folder.mkdir(parents=True)
    files = tuple(path.as_posix() for path in build(target, folder))
    spec = EngineSpec.read(folder)
    about = checked(subject, target, folder, build)
    return BundleTarget(folder=folder_of(target), files=files, flags=spec.flags, options=spec.runtime_options, **about)


def cost_of(net: MultiTaskNet, precision: Mapping[str, str], ranges: Ranges | None, target: ExportTarget) -> BundleCost:
    """Count the graph that a target is given, all tasks and each alone; `UserError` where an operator has no count.

    Bytes are those of the plan where a target writes no graph: a project has types of its own.
    """
    wanted = honoured(precision, target.traits)
    cost = count_graph(quantize(emit(net), wanted, ranges or Ranges({}), target.scheme))
    if not cost.total.exact:
        raise UserError(f"the net cannot be counted: {'; '.join(cost.notes)}")
    if not isinstance(target, EmulatingTarget) or any(block.experts is not None for block in net.plan.blocks):
        return recorded(cost)
    stored = net.plan.cost(wanted, storage=target.traits.storage).weight_bytes
    return recorded(cost).model_copy(update={"weight_bytes": stored})


def recorded(cost: Cost) -> BundleCost:
    """Counts of a graph, as a manifest records them."""
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
) -> Manifest:
    """Manifest of a bundle of `net`, whose files lie in `scratch`."""
    height, width = net.input_size
    about = BundleInput(height=height, width=width, mean=IMAGE_MEAN, std=IMAGE_STD)
    tasks = tuple(describe_task(task, (height, width)) for task in net.tasks)
    return make_manifest((about, tasks), digest, precision, parts, cost, origin, scratch)


def make_manifest(
    contract: tuple[BundleInput, tuple[BundleTask, ...]],
    digest: str,
    precision: Mapping[str, str],
    parts: Mapping[str, BundleTarget],
    cost: BundleCost,
    origin: Origin,
    scratch: Path,
) -> Manifest:
    """Manifest fields of every bundle, whose files lie in `scratch`; the `contract` is its input and its tasks."""
    about, tasks = contract
    names = [task.name for task in tasks]
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
        input=about,
        tasks=tasks,
        modes=tuple(modes),
        targets=dict(parts),
        files={path.relative_to(scratch).as_posix(): sha256(path) for path in files},
        cost=cost,
        provenance=Provenance(
            environment=environment(), net_sha256=digest, run=origin.run, seed=origin.seed, data=data, net=origin.net
        ),
        blocks=origin.blocks,
    )
