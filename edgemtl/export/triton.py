"""The layout triton: a model repository for NVIDIA's Triton Inference Server, one model for each mode.

TensorRT engines are built on the board, so that each model's version holds its graph, and `build.sh` makes
`model.plan` of it with the board's own `trtexec`. A model has fixed tasks and answers all of them in every call.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import onnx
from onnx import TensorProto, ValueInfoProto

from edgemtl.bundle import BundleTarget, Manifest
from edgemtl.errors import UserError
from edgemtl.export.bundle import cost_of, manifest_of
from edgemtl.export.checked import honoured
from edgemtl.export.placing import net_sha256, placing
from edgemtl.export.plain import Plain, Types, checked_plain, describe_plain, finished, tasks_of
from edgemtl.export.request import Evidence, ExportedNet, ExportRequest, Origin
from edgemtl.files.disk import write_atomic
from edgemtl.models import MultiTaskNet
from edgemtl.progress import Report, note, silent
from edgemtl.runtime import EngineSpec
from edgemtl.targets import TensorRtTarget

__all__ = ["BUILD_FILE", "MODELS", "export_triton", "model_config"]

MODELS = "models"
"""The repository's folder, which `tritonserver --model-repository` is given."""
BUILD_FILE = "build.sh"
CONFIG_FILE = "config.pbtxt"
ALL_TASKS = "all-tasks"
_VERSION, _PLAN = "1", "model.plan"
_WORKSPACE = """\
# CPU and GPU share the memory: a build takes a quarter of the MiB that are free, at most 1024.
workspace=$(awk '/^MemAvailable:/ { m = int($2 / 4096); print (m < 16 ? 16 : (m > 1024 ? 1024 : m)) }' /proc/meminfo)"""
_SHARED = '--memPoolSize=workspace:"$workspace" --timingCacheFile=../../timings.cache'
"""Options of every build; the timings of kernels that one model has measured serve the others."""
_TYPES: dict[int, str] = {
    TensorProto.FLOAT: "TYPE_FP32",
    TensorProto.INT64: "TYPE_INT64",
    TensorProto.UINT8: "TYPE_UINT8",
}


def export_triton(
    net: MultiTaskNet,
    precision: Mapping[str, str] | str,
    request: ExportRequest,
    folder: Path,
    evidence: Evidence,
    layout: Plain = Plain(form="triton"),  # noqa: B008 (frozen)
    origin: Origin = Origin(),  # noqa: B008 (frozen)
    report: Report = silent,
) -> Manifest:
    """Write a model repository to `folder/models`, with a manifest beside it: a model of all tasks, and one of each.

    Arguments, and what is raised, are those of `export_plain`; the target is `tensorrt` for one JetPack. Raises
    `UserError` for another target, without a JetPack, for a placement that `trtexec` cannot build, and where `folder`
    is there already.
    """
    given = {"engine": precision} if isinstance(precision, str) else dict(precision)
    net = net.subset(tasks_of(net, layout))
    wanted = _of_blocks(given, net)
    target = _target(request, net)
    if folder.exists():
        raise UserError(f"{folder} is there already, and a model repository is written whole: choose another --out")
    subject = ExportedNet.of(net, wanted, request, evidence, report)
    names, digest = [task.name for task in net.tasks], net_sha256([net], wanted)
    modes = {ALL_TASKS: names, **({name: [name] for name in names} if len(names) > 1 else {})}
    types: Types = {}
    with placing(folder) as position:
        position.check(digest, [target.traits.name], layout="triton")
        models = position.scratch / MODELS
        commands = {}
        for name, tasks in modes.items():
            note(report, f"building the model {name}")
            part = net.subset(tasks)
            one = replace(subject, net=part, precision=_of_blocks(wanted, part))
            commands[name] = _write_model(models / name, one, target, layout, types)
        write_atomic(models / BUILD_FILE, _build_script(target, commands).encode())
        files = tuple(path.relative_to(models).as_posix() for path in sorted(models.rglob("*")) if path.is_file())
        about = checked_plain(subject, target)
        parts = {target.traits.name: BundleTarget(folder=MODELS, files=files, **about)}
        cost = cost_of(net, wanted, subject.ranges, target)
        made = manifest_of(net, digest, wanted, parts, cost, origin, position.scratch)
        return position.publish(describe_plain(made, layout, types, tuple(map(tuple, modes.values()))))


def _of_blocks(precision: Mapping[str, str], net: MultiTaskNet) -> dict[str, str]:
    return {name: value for name, value in precision.items() if name == "engine" or name in net.block_tasks}


def _target(request: ExportRequest, net: MultiTaskNet) -> TensorRtTarget:
    targets = request.find_targets(net)
    if len(targets) != 1 or not isinstance(targets[0], TensorRtTarget):
        names = " and ".join(target.traits.name for target in targets)
        raise UserError(f"--layout triton given for {names}: it is for one target alone, give --target tensorrt")
    if targets[0].jetpack is None:
        raise UserError("--layout triton given without a JetPack, whose trtexec builds its engines: add --jetpack 6.2")
    return targets[0]


def _write_model(folder: Path, subject: ExportedNet, target: TensorRtTarget, layout: Plain, types: Types) -> list[str]:
    """Write one model's graph and configuration; returns the command that builds its engine beside the graph."""
    written: list[onnx.ModelProto] = []

    def finish(model: onnx.ModelProto) -> onnx.ModelProto:
        written.append(finished(model, subject.net, layout, types))
        return written[-1]

    version = folder / _VERSION
    version.mkdir(parents=True)
    spec = target.build_plain(subject.net, honoured(subject.precision, target.traits), subject.ranges, version, finish)
    graph = written[-1].graph
    write_atomic(folder / CONFIG_FILE, model_config(folder.name, graph.input, graph.output).encode())
    return _command(spec)


def _command(spec: EngineSpec) -> list[str]:
    """The command line of `trtexec` that writes `model.plan`; raises `UserError` where it can be told not all."""
    command = [str(word) for word in spec.options["builds"][0]["trtexec"]]
    if not command:
        raise UserError(
            "trtexec reads no scales for INT8 on the DLA: export a bundle without --layout triton, or drop --dla"
        )
    return [f"--saveEngine={_PLAN}" if word.startswith("--saveEngine=") else word for word in command]


def _build_script(target: TensorRtTarget, commands: Mapping[str, list[str]]) -> str:
    """A shell script that builds every model's engine on the board, next to its graph."""
    lines = [
        "#!/bin/sh",
        f"# Builds the engines of this model repository on a board with JetPack {target.jetpack}, by its own TensorRT.",
        "set -eu",
        'cd "$(dirname "$0")"',
        'PATH="$PATH:/usr/src/tensorrt/bin"',
        _WORKSPACE,
    ]
    lines += [
        f"(cd {shlex.quote(f'{name}/{_VERSION}')} && {shlex.join(words)} {_SHARED})" for name, words in commands.items()
    ]
    return "\n".join(lines) + "\n"


def model_config(name: str, inputs: Iterable[ValueInfoProto], outputs: Iterable[ValueInfoProto]) -> str:
    """A model's `config.pbtxt`: tensors of fixed types and shapes, whose first dimension is no batch of Triton's."""
    return "\n".join(
        [
            f"name: {json.dumps(name)}",
            'platform: "tensorrt_plan"',
            "max_batch_size: 0",
            f"default_model_filename: {json.dumps(_PLAN)}",
            f"version_policy {{ specific {{ versions: {_VERSION} }} }}",
            *(f"input {{ {_tensor(info)} }}" for info in inputs),
            *(f"output {{ {_tensor(info)} }}" for info in outputs),
            "instance_group { kind: KIND_GPU count: 1 }",
            "",
        ]
    )


def _tensor(info: ValueInfoProto) -> str:
    kind = info.type.tensor_type
    dims = ", ".join(str(size.dim_value) for size in kind.shape.dim)
    return f"name: {json.dumps(info.name)} data_type: {_TYPES[kind.elem_type]} dims: [ {dims} ]"
