"""The layout plain: for each target one file of fixed tasks and shapes, which its runtime opens without edgemtl."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import onnx

from edgemtl.bundle import BundleInput, BundleTarget, BundleTask, Manifest
from edgemtl.errors import UnsupportedError, UserError
from edgemtl.export.bundle import cost_of, manifest_of
from edgemtl.export.checked import checked, folder_of, honoured
from edgemtl.export.placing import net_sha256, placing
from edgemtl.export.plain_readme import README_FILE, write_readme
from edgemtl.export.request import Evidence, ExportedNet, ExportRequest, Origin
from edgemtl.export.wrap import with_normalisation, with_postprocessing, with_shapes
from edgemtl.models import MultiTaskNet
from edgemtl.progress import Report, note, silent
from edgemtl.runtime import EngineSpec
from edgemtl.targets import ExportTarget, PlainTarget, is_runnable
from edgemtl.tasks import check_tasks

__all__ = ["Form", "Plain", "Types", "checked_plain", "describe_plain", "export_plain", "finished", "tasks_of"]

Form = Literal["plain", "triton"]
Types = dict[str, onnx.TypeProto.Tensor]
"""The type of each output of a file, by its tensor."""


@dataclass(frozen=True)
class Plain:
    """Content of plain files: `tasks` (None: all), and the steps that stand inside them, not left to the caller.

    They lie in a folder for each target, or, where `form` is "triton", in a model repository.
    """

    tasks: str | Sequence[str] | None = None
    normalisation: bool = False
    postprocessing: bool = False
    form: Form = "plain"


def export_plain(
    net: MultiTaskNet,
    precision: Mapping[str, str] | str,
    request: ExportRequest,
    folder: Path,
    evidence: Evidence,
    layout: Plain = Plain(),
    origin: Origin = Origin(),  # noqa: B008 (frozen)
    report: Report = silent,
) -> Manifest:
    """Write one file of fixed tasks for each requested target to `folder`, with a manifest, and a README for people.

    A file has one input, `image`, and the outputs of every task, called as in `edgemtl.tasks.by_tensor`; every call
    answers all of them. Arguments, and what is raised, are those of `export_bundle`, which also says when the folder
    appears; parity is checked before the steps that `layout` puts around the net. Raises `UnsupportedError` for a
    target without files that another program can open.
    """
    wanted = {"engine": precision} if isinstance(precision, str) else dict(precision)
    net = net.subset(tasks_of(net, layout))
    wanted = {name: value for name, value in wanted.items() if name == "engine" or name in net.block_tasks}
    targets = [_check(target) for target in request.find_targets(net)]
    subject = ExportedNet.of(net, wanted, request, evidence, report)
    digest = net_sha256([net], wanted)
    with placing(folder) as position:
        position.check(digest, [target.traits.name for target in targets], layout="plain")
        scratch, parts = position.scratch, {}
        types: Types = {}
        for target in targets:
            note(report, f"building for {target.traits.name}")
            parts[target.traits.name], types = _write(subject, target, scratch / folder_of(target), layout)
        cost = cost_of(net, wanted, subject.ranges, targets[0])
        made = describe_plain(manifest_of(net, digest, wanted, parts, cost, origin, scratch), layout, types)
        if (before := position.before) is not None and (before.input, before.tasks) != (made.input, made.tasks):
            raise UserError(f"{folder} holds files with other steps inside: choose another --out, or the same flags")

        def page(folder: Path, manifest: Manifest) -> None:
            if not write_readme(folder, manifest):
                note(
                    report,
                    f"{folder / README_FILE} is not as edgemtl wrote it, and stays; "
                    "without it, export writes a new one",
                )

        return position.publish(made, page)


def tasks_of(net: MultiTaskNet, layout: Plain) -> tuple[str, ...]:
    """The tasks that a layout has files of; raises `UserError` for one that the net lacks."""
    names = [task.name for task in net.tasks]
    return tuple(names) if layout.tasks is None else check_tasks(layout.tasks, names)


def _check(target: ExportTarget) -> ExportTarget:
    if not isinstance(target, PlainTarget):
        raise UnsupportedError(
            f"target {target.traits.name} writes files that edgemtl alone can open: export it without --layout plain, "
            "or give another target"
        )
    return target


def _write(subject: ExportedNet, target: ExportTarget, folder: Path, layout: Plain) -> tuple[BundleTarget, Types]:
    """Write one target's file; what the manifest says of it, and the type of each of its outputs."""
    types: Types = {}
    folder.mkdir(parents=True)
    spec = _built(subject, target, folder, lambda model: finished(model, subject.net, layout, types))
    about = checked_plain(subject, target)
    files = tuple(spec.files.values())
    return BundleTarget(folder=folder_of(target), files=files, options=spec.runtime_options, **about), types


def finished(model: onnx.ModelProto, net: MultiTaskNet, layout: Plain, types: Types) -> onnx.ModelProto:
    """The model with the steps of a layout around the net; `types` gets those of its outputs."""
    model = with_normalisation(model) if layout.normalisation else model
    model = with_shapes(with_postprocessing(model, net.tasks) if layout.postprocessing else model)
    types.update({info.name: info.type.tensor_type for info in model.graph.output})
    return model


def checked_plain(subject: ExportedNet, target: ExportTarget) -> dict[str, Any]:
    """Manifest entry of a target's file: parity is that of the file as it is without steps around the net."""

    def bare(target: ExportTarget, position: Path) -> None:
        _built(subject, target, position, with_shapes).write(position)

    with tempfile.TemporaryDirectory(prefix="edgemtl-") as alone:
        if is_runnable(target, honoured(subject.precision, target.traits)):
            bare(target, Path(alone))
        return checked(subject, target, Path(alone), bare)


def _built(
    subject: ExportedNet,
    target: ExportTarget,
    position: Path,
    finish: Callable[[onnx.ModelProto], onnx.ModelProto],
) -> EngineSpec:
    precision = honoured(subject.precision, target.traits)
    return cast("PlainTarget", target).build_plain(subject.net, precision, subject.ranges, position, finish)


def describe_plain(
    manifest: Manifest, layout: Plain, types: Types, modes: tuple[tuple[str, ...], ...] | None = None
) -> Manifest:
    """A bundle's manifest as that of plain files, of all tasks or of `modes`: what stands in them is left to nobody."""
    modes = modes or (tuple(task.name for task in manifest.tasks),)
    image = _bytes(manifest.input) if layout.normalisation else manifest.input
    tasks = manifest.tasks
    if layout.postprocessing:
        tasks = tuple(_predicting(task, types) for task in tasks)
    return manifest.model_copy(update={"layout": layout.form, "modes": modes, "input": image, "tasks": tasks})


def _bytes(image: BundleInput) -> BundleInput:
    whole = {"layout": "NHWC", "dtype": "uint8", "scale": 1.0, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    return image.model_copy(update=whole)


def _predicting(task: BundleTask, types: Types) -> BundleTask:
    """The task whose outputs are results already, of these types."""
    outputs, declared = [], {output.name: output for output in task.task().outputs}
    for output in task.outputs:
        kind = types[output.tensor]
        update = {
            "shape": tuple(size.dim_value for size in kind.shape.dim),
            "dtype": "int64" if kind.elem_type == onnx.TensorProto.INT64 else "float32",
            "unit": declared[output.name].decoded or task.result,
        }
        outputs.append(output.model_copy(update=update))
    return task.model_copy(update={"outputs": tuple(outputs), "postprocess": "none", "formula": "raw"})
