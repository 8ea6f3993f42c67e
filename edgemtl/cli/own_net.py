"""Nets of one's own on the command line: their tasks as YAML, and their bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from edgemtl.cli.following import is_for_here, profile_command
from edgemtl.cli.level_table import show_levels
from edgemtl.cli.screen import Screen
from edgemtl.cli.stages import Stages
from edgemtl.cli.verb import interruptible, parse_size
from edgemtl.units import format_bytes, format_flops

if TYPE_CHECKING:
    from edgemtl.bundle import BundleTarget, Manifest
    from edgemtl.export import ExportRequest, Rounding
    from edgemtl.own import Declaration, OwnNet

__all__ = ["check_options", "export_own", "opened_net", "print_proposal"]

_OF_RUN = (
    "design",
    "exact",
    "supernet",
    "layout",
    "dla",
    "with_normalisation",
    "with_postprocessing",
)
_OF_NET = ("size", "images", "precision", "data")


def check_options(net: str, own: bool) -> None:
    """`UserError` for an option of a run beside a net of one's own, and the other way round."""
    from edgemtl.errors import UserError

    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        is_given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if is_given and name in (_OF_RUN if own else _OF_NET):
            kind, other = ("net of one's own", "run") if own else ("run", "net of one's own")
            raise UserError(f"{parameter.opts[0]} belongs to a {other}, {net} is a {kind}: drop it")


def print_proposal(screen: Screen, net: str, size: str | None) -> None:
    """Print the proposed tasks of a net as YAML, to be edited and given to `edgemtl export --tasks`."""
    from edgemtl.own import as_text, open_net, propose_tasks

    declaration = propose_tasks(open_net(net, parse_size(size)))
    if not screen.as_json:
        click.echo(as_text(declaration), nl=False)
    screen.json(declaration.model_dump(mode="json"))


def export_own(
    screen: Screen,
    net: str,
    request: ExportRequest,
    tasks: str | None,
    size: str | None,
    images: tuple[Path, ...],
    rounding: Rounding,
    levels: str | None,
    out: Path | None,
) -> None:
    """Write the bundle of a net, and print how its engines compare with it."""
    from edgemtl.bundle import MANIFEST_FILE
    from edgemtl.errors import UserError
    from edgemtl.export import export_own_levels, export_own_net
    from edgemtl.files.disk import read_json

    if out is None:
        raise UserError(f"{net} does not say where its bundle goes: give --out, for example --out bundles/mine")
    if levels is not None:
        _check_levels(levels, images, rounding)
    opened, declaration = opened_net(screen, net, parse_size(size), tasks)
    with interruptible(f"{out} is what it was, or holds all that was asked for"), Stages() as stages:
        if levels is None:
            manifest = export_own_net(opened, declaration, request, out, images, stages, rounding)
        else:
            about = opened, net, declaration
            manifest = export_own_levels(about, levels, request, out, rounding.data, stages)
    if not screen.as_json:
        _show(screen, manifest, out)
    screen.json(read_json(out / MANIFEST_FILE, "manifest"))


def _check_levels(levels: str, images: tuple[Path, ...], rounding: Rounding) -> None:
    """`UserError` for options that levels do not take."""
    from edgemtl.errors import UserError

    if rounding.name != "float":
        raise UserError(
            f"--levels {levels} and --precision {rounding.name} given: levels are float, since each level would round "
            "weights on a grid of its own: drop one of them"
        )
    if images:
        raise UserError(
            f"--levels {levels} and --image given: levels are compared on the photos of --data: drop --image"
        )


def opened_net(screen: Screen, net: str, size: tuple[int, int] | None, tasks: str | None) -> tuple[OwnNet, Declaration]:
    """A net with its tasks of a YAML file; without one those that are proposed, which are shown."""
    from edgemtl.own import as_text, open_net, propose_tasks, read_declaration

    if tasks is not None:
        declaration = read_declaration(Path(tasks))
        return open_net(net, size, declaration.constants), declaration
    opened = open_net(net, size)
    declaration = propose_tasks(opened)
    screen.note("no --tasks given: these are proposed, from names and shapes alone")
    for line in as_text(declaration).splitlines():
        screen.note(line)
    return opened, declaration


def _show(screen: Screen, manifest: Manifest, out: Path) -> None:
    rows: list[tuple[object, ...]] = []
    for name, target in manifest.targets.items():
        if not target.parity:
            rows.append((name, "all", None, None, None, None, "not checked: it does not run here"))
        seen = f", {_modes(target, len(manifest.tasks))} on the first"
        for task, each in target.parity.items():
            score = f"{each.metric} {each.engine:.6g}"
            if each.split is not None:
                score += f" on labels, {each.torch:.6g} in float"
            elif each.metric_allowed is None and each.agreement is not None:
                score += f"; agreement with the float net {each.agreement:.2%}"
            for output, difference in each.outputs.items():
                apart, relative = f"{difference.max_abs_error:.2g}", f"{difference.relative_error:.2g}"
                rows.append((name, task, output, apart, relative, score, f"{each.images} images{seen}"))
    columns = ("target", "task", "output", "largest difference", "relative", "against the net's own", "on")
    screen.table("Engines against the net", columns, rows)
    show_levels(screen, manifest, out)
    paths = manifest.cost.paths.items()
    shares = ", ".join(f"{task} alone {format_flops(path.flops)}" for task, path in paths)
    screen.say(f"{format_flops(manifest.cost.flops)}, weights {format_bytes(manifest.cost.weight_bytes)}; {shares}")
    runs = f"edgemtl run {out} IMAGE, " if is_for_here(manifest) else ""
    screen.say(f"written: {out}; next: {runs}{profile_command(manifest, out)}")


def _modes(target: BundleTarget, tasks: int) -> str:
    """The modes that were compared, all tasks together among them, in words."""
    checked, every = target.modes_checked + 1, 2**tasks - 1
    return f"every mode ({every})" if checked == every else f"{checked} of {every} modes"
