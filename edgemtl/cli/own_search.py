"""`edgemtl search NET`: the precision of a net of one's own, on the command line."""

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
    "net", "tasks", "budgets", "floors", "data", "size", "target", "device", "threads", "out", "resume", "format_",
    "verbose", "debug",
}  # fmt: skip


def search_own(
    screen: Screen, net: str, tasks: str | None, size: tuple[int, int] | None, out: Path, options: Mapping[str, Any]
) -> None:
    """Choose the precision of a net's blocks, and print finalists and choice; `options` are the request's fields."""
    from edgemtl.cli.tables import show_result
    from edgemtl.files.disk import read_json
    from edgemtl.nas.precision import PrecisionRequest, search_precision
    from edgemtl.own import is_own_net
    from edgemtl.results import RESULT_FILE

    if not is_own_net(net):
        raise UserError(
            f"{net} is no net of one's own: give an ONNX file or package.module:function, or no net at all to search a "
            "space of nas/"
        )
    _check_options(net)
    opened, declaration = opened_net(screen, net, size, tasks)
    command = shlex.join(["edgemtl", *sys.argv[1:]])
    request = PrecisionRequest(
        opened, declaration, out=out, command=command, **{**options, "data": Path(options["data"])}
    )
    usable = f"what was scored is kept in {out}; go on with: {resume_line(out)}"
    with interruptible(usable, [out / "config.json"]), Stages() as stages:
        result = search_precision(request, stages)
    if not screen.as_json:
        show_result(screen, result)
        _show_choice(screen, result)
        given = [*(["--tasks", tasks] if tasks else []), *(["--size", "x".join(map(str, size))] if size else [])]
        words = shlex.join(["edgemtl", "export", net, *given])
        target = f"--target {options['target'] or 'onnxruntime'}"
        screen.say(f"written: {out / RESULT_FILE}; next: {words} --precision {out} {target} --out {out / 'bundle'}")
    screen.json(read_json(out / RESULT_FILE, "result"))


def _show_choice(screen: Screen, result: Result) -> None:
    if result.best is None:
        return
    blocks = {name: value for name, value in result.best.design.items() if name != "engine"}
    eight = [name for name, value in blocks.items() if value == "int8"]
    engine = result.best.design["engine"]
    screen.say(f"chosen: {len(eight)} of {len(blocks)} blocks in INT8, the rest in {engine}: {', '.join(eight) or '-'}")


def _check_options(net: str) -> None:
    """`UserError` for an option that a net of one's own does not have."""
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in _OPTIONS:
            raise UserError(
                f"{parameter.opts[0]} belongs to the search of a space, {net} is a net of one's own, of which the "
                "precision is searched: drop it"
            )
    if context.get_parameter_source("data") is not ParameterSource.COMMANDLINE:
        raise UserError(
            f"{net} does not say what INT8 is calibrated and compared on: give a folder of photos with --data"
        )
