"""`edgemtl search NET`: channels and precision of a net of one's own, on the command line."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from edgemtl.cli.own_net import opened_net
from edgemtl.cli.screen import Screen
from edgemtl.cli.stages import Stages
from edgemtl.cli.verb import interruptible, resume_line
from edgemtl.errors import UserError

if TYPE_CHECKING:
    from edgemtl.results import Result

__all__ = ["search_own"]

_OPTIONS = {
    "net", "tasks", "budgets", "floors", "data", "size", "target", "device", "threads", "finetune", "out", "resume",
    "strategy", "settings", "evaluations", "seed", "train_step", "objectives", "preference", "workers", "storage",
    "format_", "verbose", "debug",
}  # fmt: skip


def search_own(
    screen: Screen, net: str, tasks: str | None, size: tuple[int, int] | None, out: Path, options: Mapping[str, Any]
) -> None:
    """Choose a net's channels and precisions, and print finalists and choice; `options` are the request's fields."""
    from edgemtl.cli.tables import show_result
    from edgemtl.files.disk import read_json
    from edgemtl.nas.evaluation import hide_password
    from edgemtl.nas.precision import PrecisionRequest, check_resumed, search_precision
    from edgemtl.nas.prune import FineTuning
    from edgemtl.own import is_own_net
    from edgemtl.results import RESULT_FILE

    if not is_own_net(net):
        raise UserError(
            f"{net} is no net of one's own: give an ONNX file or package.module:function, or no net at all to search a "
            "space of nas/"
        )
    _check_options(net)
    given = {**options, "data": Path(options["data"])}
    given["tuning"] = FineTuning(given.pop("steps"), given.pop("train_step") or "")
    if given["resume"]:
        check_resumed(out, given)
    opened, declaration = opened_net(screen, net, size, tasks)
    command = hide_password(shlex.join(["edgemtl", *sys.argv[1:]]))
    request = PrecisionRequest(opened, declaration, out=out, command=command, **given)
    usable = f"what was scored is kept in {out}; go on with: {resume_line(out)}"
    with interruptible(usable, [out / "config.json"]), Stages() as stages:
        result = search_precision(request, stages)
    if not screen.as_json:
        show_result(screen, result)
        _show_choice(screen, result)
        about = [*(["--tasks", tasks] if tasks else []), *(["--size", "x".join(map(str, size))] if size else [])]
        words = shlex.join(["edgemtl", "export", net, *about])
        options_of_run = shlex.join(_export_options(result))
        screen.say(
            f"written: {out / RESULT_FILE}; next: {words} --precision {out} {options_of_run} --out {out / 'bundle'}"
        )
    screen.json(read_json(out / RESULT_FILE, "result"))


def _export_options(result: Result) -> list[str]:
    """Options of an export for what the search timed: a budget may have named the runtime, and the board."""
    from edgemtl.devices import HOST
    from edgemtl.targets import target_of

    timed = next(entry.latency_ms for entry in result.front if entry.latency_ms is not None)
    device = [] if timed.device == HOST else ["--device", timed.device]
    return ["--target", target_of(timed.runtime) or timed.runtime, *device]


def _show_choice(screen: Screen, result: Result) -> None:
    if result.best is None:
        return
    design = result.best.design
    channels = [name for name in design if name.endswith(".channels")]
    blocks = {name: value for name, value in design.items() if name != "engine" and name not in channels}
    engine = design["engine"]
    if channels and result.baseline is not None:
        screen.say(f"pruned: {result.best.flops / max(result.baseline.flops, 1):.0%} of the FLOPs are left")
    eight, four = ([name for name, value in blocks.items() if value == kind] for kind in ("int8", "int4"))
    words = f"{len(eight)} of {len(blocks)} blocks in INT8"
    words += f", {len(four)} with weights in INT4" if four else ""
    screen.say(f"chosen: {words}, the rest in {engine}: {', '.join([*eight, *four]) or '-'}")


def _check_options(net: str) -> None:
    """`UserError` for an option that a net of one's own does not have."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in _OPTIONS:
            raise UserError(
                f"{parameter.opts[0]} belongs to the search of a space, {net} is a net of one's own, of which "
                "channels and precision are searched: drop it"
            )
    if context.get_parameter_source("data") is not ParameterSource.COMMANDLINE:
        raise UserError(
            f"{net} does not say what INT8 is calibrated and compared on: give a folder of photos with --data, "
            "or a data set with labels"
        )
