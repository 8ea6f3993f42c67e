"""`edgemtl export`."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from edgemtl.cli.following import profile_command
from edgemtl.cli.level_table import show_levels
from edgemtl.cli.own_net import check_options, export_own
from edgemtl.cli.screen import Screen
from edgemtl.cli.stages import Stages
from edgemtl.cli.verb import interruptible, verb
from edgemtl.units import format_bytes, format_flops

if TYPE_CHECKING:
    from edgemtl.bundle import BundleTarget, Manifest
    from edgemtl.export import Form, Plain

__all__ = ["export"]

LAYOUTS = ("bundle", "plain", "triton")
_NEXT = {
    "plain": "{}/README.md says how to open it",
    "triton": "on the board sh {0}/models/build.sh, then tritonserver --model-repository {0}/models",
}
REASONS = 5
"""Operators that the DLA refuses which are shown."""


@verb(
    "export",
    examples=(
        "edgemtl export runs/first --target onnxruntime --target openvino",
        "edgemtl export runs/first --design baseline --target tensorrt-rtx --out bundles/largest",
        "edgemtl export runs/first --device raspberry-pi-5 --out bundles/pi",
        "edgemtl export runs/first --portable --out bundles/anywhere",
        "edgemtl export runs/first --target tensorrt --device jetson-orin-nano --jetpack 6.2 --out bundles/orin",
        "edgemtl export runs/first --target tensorrt --device jetson-agx-orin --jetpack 6.2 --dla --out bundles/dla",
        "edgemtl export runs/first --target tensorrt --jetpack 6.2 --layout triton --out repository",
        "edgemtl export runs/experts --target tensorrt-rtx --exact",
        "edgemtl export runs/first --levels 5 --target onnxruntime --out bundles/levels",
        "edgemtl export runs/first --target onnxruntime --layout plain --tasks depth,semseg --with-postprocessing",
        "edgemtl export pose.onnx --tasks tasks.yaml --target onnxruntime --target openvino --out bundles/pose",
        "edgemtl export pose.onnx --tasks tasks.yaml --precision int8 --data photos --out bundles/int8",
        "edgemtl export pose.onnx --tasks tasks.yaml --levels 1,0.75,0.5 --data photos --target onnxruntime",
        "edgemtl export nets.rooms:build --size 192x256 --target openvino --out bundles/mine",
    ),
)
@click.argument("net", metavar="RUN_OR_NET")
@click.option(
    "--target",
    "targets",
    metavar="NAME",
    multiple=True,
    help="A runtime to write engines for; several make one bundle.",
)
@click.option("--device", metavar="NAME", help="What engines are made for; by default what the run was searched for.")
@click.option(
    "--portable",
    is_flag=True,
    help="Engines that are right on every processor: weights of seven bits where others have eight. What that costs is "
    "printed.",
)
@click.option(
    "--jetpack",
    metavar="RELEASE",
    help="For the target tensorrt: the board's JetPack, whose TensorRT builds the engines. Without it graphs are for "
    "each of TensorRT 8.5 to 11.",
)
@click.option(
    "--dla",
    is_flag=True,
    help="For the target tensorrt: layers run on the DLA of --device where it takes them, in INT8 and FP16, the others "
    "on the GPU.",
)
@click.option("--design", metavar="NAME", default="best", show_default=True, help="Which of the run's designs.")
@click.option(
    "--exact",
    is_flag=True,
    help="Drop no token of a mixture of experts: where a target needs a fixed capacity, each expert has one of "
    "all tokens, and computes as many.",
)
@click.option(
    "--levels",
    metavar="N_OR_PARTS",
    help="Instead of one design, N of the run's supernet over one copy of the weights: each task preferred, then at "
    "half the budget. For a net of your own: parts of its FLOPs (1,0.75,0.5), or folders of prunings of it.",
)
@click.option(
    "--layout",
    type=click.Choice(LAYOUTS),
    default=LAYOUTS[0],
    show_default=True,
    help="plain: for each target one file of fixed tasks and shapes that its runtime opens without edgemtl. triton: a "
    "model repository for Triton, for the target tensorrt.",
)
@click.option(
    "--tasks",
    metavar="NAMES_OR_FILE",
    help="For --layout plain and triton: only these tasks: depth,semseg. For a net of your own: the YAML file that "
    "says which outputs are which task; proposed and printed without one.",
)
@click.option("--size", metavar="HxW", help="For a net of your own whose input has no fixed size: 192x256.")
@click.option(
    "--image",
    "images",
    metavar="PICTURE",
    multiple=True,
    type=click.Path(path_type=Path),
    help="For a net of your own: a photo to compare engines with the net on; rendered rooms without any.",
)
@click.option(
    "--precision",
    metavar="NAME_OR_RUN",
    default="float",
    show_default=True,
    help="For a net of your own: float, int8, int4, an engine of the target (bf16), or the folder of a search for it.",
)
@click.option(
    "--data",
    metavar="DATA",
    type=click.Path(path_type=Path),
    help="For a net of your own: a folder of photos without labels, of which a third calibrates INT8 and another is "
    "compared on; or a data set as for training, whose test labels score each task.",
)
@click.option(
    "--with-normalisation",
    is_flag=True,
    help="For --layout plain and triton: the input is the picture's bytes (1, H, W, 3), and is normalised inside.",
)
@click.option(
    "--with-postprocessing",
    is_flag=True,
    help="For --layout plain and triton: outputs are class numbers, metres, unit vectors and probabilities.",
)
@click.option(
    "--supernet", type=click.Path(path_type=Path), help="For --levels: the run's supernet, where its file has moved."
)
@click.option("--out", type=click.Path(path_type=Path), help="The bundle's folder; RUN/bundle or RUN/plain by default.")
def export(
    screen: Screen,
    net: str,
    targets: tuple[str, ...],
    device: str | None,
    portable: bool,
    jetpack: str | None,
    dla: bool,
    design: str,
    exact: bool,
    levels: str | None,
    layout: str,
    tasks: str | None,
    size: str | None,
    images: tuple[Path, ...],
    precision: str,
    data: Path | None,
    with_normalisation: bool,
    with_postprocessing: bool,
    supernet: Path | None,
    out: Path | None,
) -> None:
    """Write a bundle with engines for a run's design, or for a net of your own.

    Every task of every engine is checked against PyTorch, tensor by tensor and in the task's own metric. To a bundle of
    the same net the engines are added; whatever else it holds stays.

    A net of your own is an ONNX file, or package.module:function: the function, which is imported and called, returns
    a trained torch.nn.Module. Its engines are compared with the net itself, in float, in every mode.
    """
    from edgemtl.bundle import MANIFEST_FILE
    from edgemtl.devices import load_device
    from edgemtl.export import ExportRequest, Rounding, export_run
    from edgemtl.files.disk import read_json
    from edgemtl.own import is_own_net
    from edgemtl.runs import read_config

    own = is_own_net(net)
    check_options(net, own)
    request = ExportRequest(targets, load_device(device) if device else None, exact, portable, jetpack, dla)
    if own:
        export_own(screen, net, request, tasks, size, images, Rounding(precision, data), levels, out)
        return
    run = Path(net)
    folder = out or run / layout
    plain = _plain(layout, tasks, with_normalisation, with_postprocessing)
    usable = f"{folder} is what it was, or holds all that was asked for: nothing appears in parts"
    with interruptible(usable), Stages() as stages:
        chosen = {"design": design, "levels": _count(levels), "supernet": supernet, "layout": plain}
        manifest = export_run(run, request, folder, **chosen, report=stages)  # type: ignore[arg-type]
    if not screen.as_json:
        _parity(screen, manifest)
        if portable:
            _cost_of_portable(screen, manifest, targets or (read_config(run).target,))
        if dla:
            _placed(screen, manifest, folder)
        _rest(screen, manifest, folder, layout)
    screen.json(read_json(folder / MANIFEST_FILE, "manifest"))


def _rest(screen: Screen, manifest: Manifest, folder: Path, layout: str) -> None:
    """Tokens that are dropped, levels, cost, and where the files lie."""
    _dropped(screen, manifest)
    show_levels(screen, manifest, folder)
    cost = manifest.cost
    screen.say(f"{format_flops(cost.flops)}, weights {format_bytes(cost.weight_bytes)}")
    screen.say(f"written: {folder}; next: {_next(manifest, folder, layout)}")


def _next(manifest: Manifest, folder: Path, layout: str) -> str:
    """The command that goes on from what was written; a project for an FPGA alone cannot be profiled."""
    if layout in _NEXT:
        return _NEXT[layout].format(folder)
    if {engine.runtime for engine in manifest.targets.values()} == {"hls4ml"}:
        return f"edgemtl report {folder}; the vendor's tools go on in {folder / 'engines/hls'}"
    return profile_command(manifest, folder)


def _count(levels: str | None) -> int:
    """How many levels of a run are wanted, 0 where none are; `UserError` for what is no number."""
    from edgemtl.errors import UserError

    if levels is None or levels.isdecimal():
        return int(levels or 0)
    raise UserError(f"--levels {levels}: of a run a number is wanted, for example 5; parts are for a net of one's own")


def _plain(layout: str, tasks: str | None, normalisation: bool, postprocessing: bool) -> Plain | None:
    """The requested content of plain files; None for the layout bundle, where their flags raise `UserError`."""
    from edgemtl.errors import UserError
    from edgemtl.export import Plain

    if layout != "bundle":
        return Plain(None if tasks is None else tasks.split(","), normalisation, postprocessing, cast("Form", layout))
    given = {
        "--tasks": tasks is not None,
        "--with-normalisation": normalisation,
        "--with-postprocessing": postprocessing,
    }
    for flag, value in given.items():
        if value:
            raise UserError(
                f"{flag} is for files of fixed tasks, and a bundle answers any: add --layout plain, or drop it"
            )
    return None


def _parity(screen: Screen, manifest: Manifest) -> None:
    rows: list[tuple[object, ...]] = []
    for name, target in manifest.targets.items():
        if not target.parity:
            rows.append(
                (name, "all", None, None, None, None, None, "not checked: it neither runs nor is simulated here")
            )
        for task, each in target.parity.items():
            apart = [(label, f"{output.max_abs_error:.4g}", output.unit or "") for label, output in each.differences()]
            difference = ", ".join(" ".join(filter(None, words)) for words in apart)
            images = f"{each.images} {each.split or ''} images, {_judged(target)}".replace("  ", " ")
            rows.append((name, task, each.metric, each.torch, each.engine, each.tolerance, difference, images))
    columns = ("target", "task", "metric", "PyTorch", "engine", "allowed", "largest difference of raw outputs", "on")
    screen.table("Engines against the net", columns, rows)


def _judged(target: BundleTarget) -> str:
    """The engine or simulation that was compared with the net, and the machine."""
    return "simulated" if target.checked == "simulation" else f"run on {target.checked_on}"


def _cost_of_portable(screen: Screen, manifest: Manifest, made: Collection[str]) -> None:
    """Quality that the portable scheme costs against the device's own, where both ran here, for the targets `made`.

    A bundle that was added to holds others too, of which this export knows nothing.
    """
    rows: list[tuple[object, ...]] = []
    for name, target in ((name, target) for name, target in manifest.targets.items() if name in made):
        if target.own_parity is None:
            screen.say(
                f"{name}: no cost to tell: no block is INT8, the device's own processor has no better scheme, or its "
                "engine does not run right here"
            )
        for task, own in (target.own_parity or {}).items():
            portable = target.parity[task].engine
            change = f"{(portable - own.engine) / max(abs(own.engine), 1e-12):+.2%}"
            rows.append((name, task, own.metric, own.engine, portable, change))
    if rows:
        columns = ("target", "task", "metric", "the device's own scheme", "portable", "change")
        screen.table("What it costs to be portable, on the images of the check", columns, rows)


def _placed(screen: Screen, manifest: Manifest, folder: Path) -> None:
    """The blocks that the DLA takes of each graph, and why it refuses the others."""
    from edgemtl.files.disk import read_json

    own = folder / manifest.targets["tensorrt"].folder
    files = sorted(path for path in own.rglob("*.json") if path.name in ("engine.json", "build.json"))
    for file in files:
        content = read_json(file, "settings of a build")
        options = content.get("options", content)
        taken, refused, lead = options["dla"], options["gpu"], f"{file.parents[1].name}: " if len(files) > 1 else ""
        screen.say(f"{lead}the DLA takes {len(taken)} of {len(options['blocks'])} blocks: {', '.join(taken) or 'none'}")
        for reason in refused[:REASONS]:
            screen.say(f"on the GPU: {reason}")
        if len(refused) > REASONS:
            screen.say(f"and {len(refused) - REASONS} more operators on the GPU: {file.name} names them under gpu")


def _dropped(screen: Screen, manifest: Manifest) -> None:
    from edgemtl.bundle import share_dropped_by_model, share_dropped_by_target

    if dropped_by_model := share_dropped_by_model(manifest.experts):
        screen.say(
            f"the net's experts have no place for {dropped_by_model:.2%} of what is sent to them: every engine drops it"
        )
    for name in manifest.targets:
        share = share_dropped_by_target(manifest.experts, name)
        if share:
            worst = max(manifest.experts, key=lambda use: use.dropped_by_target.get(name, 0.0))
            screen.say(
                f"{name} drops {share:.2%} of the tokens sent to experts, most in {worst.layer} of "
                f"{worst.task or 'all tasks'} ({worst.dropped_by_target[name]:.2%}): edgemtl export --exact drops "
                "none, but every expert then computes every token"
            )
