"""`edgemtl prune`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgemtl.cli.screen import Screen
from edgemtl.cli.stages import Stages
from edgemtl.cli.tables import show_result
from edgemtl.cli.verb import interruptible, new_run, parse_size, resume_line, verb
from edgemtl.errors import UserError

if TYPE_CHECKING:
    from edgemtl.results import Result

__all__ = ["prune"]


@verb(
    "prune",
    examples=(
        "edgemtl prune runs/first --budget 40%FLOPs --floor depth=2% --out runs/pruned",
        "edgemtl prune runs/first --budget 40%FLOPs --floor 'semseg.miou>0.5'",
        "edgemtl prune runs/first --budget 50%params --fast",
        "edgemtl prune runs/first --design baseline --budget 1.5GFLOPs --budget 3MB --precisions",
        "edgemtl train --run runs/pruned --steps 1000 --out runs/pruned-tuned",
        "edgemtl prune nets.rooms:build --data photos/data.yaml --size 192x256 --budget 40%FLOPs",
    ),
)
@click.argument("subject", metavar="RUN_OR_MODULE")
@click.option(
    "--budget",
    "budgets",
    metavar="BUDGET",
    multiple=True,
    help="An upper limit: 40%FLOPs (of the unpruned net), 2GFLOPs, 50%params, 5MB, 8ms, depth:1GFLOPs; all hold.",
)
@click.option(
    "--floor",
    "floors",
    metavar="FLOOR",
    multiple=True,
    help="A task's own limit: depth=2% lets depth lose 2 % at most against the run's baseline; 'depth.rmse<0.9' (in "
    "quotes) is a metric's value.",
)
@click.option("--design", metavar="NAME", help="Which of the run's designs; the best by default.")
@click.option("--data", metavar="DATA", help="For a module: a data set, as in a search.")
@click.option("--size", metavar="HxW", help="For a module: its input size; 192x256 by default.")
@click.option("--fast", is_flag=True, help="Decide by the design's sensitivity map, which is measured once and kept.")
@click.option("--device", metavar="NAME", help="For a run: another device than the one it was searched for.")
@click.option("--precisions", is_flag=True, help="Choose the precision anew for the pruned net.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="The run's folder; the next free runs/pruned-N by default."
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
def prune(
    screen: Screen,
    subject: str,
    budgets: Sequence[str],
    floors: Sequence[str],
    design: str | None,
    data: str | None,
    size: str | None,
    fast: bool,
    device: str | None,
    precisions: bool,
    out: Path | None,
    resume: bool,
) -> None:
    """Remove channels of a design, or of a torch module of your own, until it keeps a budget; every task is watched.

    Channels that belong together over all tasks go together; each task whose output they reach may block their removal.
    Writes a run that exports, profiles and reports like any other; train it further with edgemtl train --run, which
    the unpruned net then teaches.

    A module is given as package.module:function, and --data with it: the function, which is imported and called,
    returns a torch.nn.Module that maps images to a dict of one tensor a task, or of a dict of outputs where a task has
    several. edgemtl.nas.prune.apply_pruning cuts such a module as the folder that is written says.
    """
    from edgemtl.nas.prune import MODULE_FILE, PruneRequest, RunDesign, UserModule
    from edgemtl.nas.prune import prune as prune_net
    from edgemtl.runs import CONFIG_FILE

    own = ":" in subject and not Path(subject).exists()
    _check_options(subject, own, design=design, data=data, size=size, device=device, precisions=precisions)
    folder, command = new_run(out, "pruned", resume), shlex.join(["edgemtl", *sys.argv[1:]])
    opening = (
        UserModule(subject, data or "", parse_size(size) or UserModule.size)
        if own
        else RunDesign(Path(subject), design or "best", device, precisions)
    )
    request = PruneRequest(opening, folder, tuple(budgets), tuple(floors), fast, resume, command)
    usable = f"what was tried is kept; go on with: {resume_line(folder)}"
    with interruptible(usable, [folder / CONFIG_FILE, folder / MODULE_FILE]), Stages() as stages:
        result = prune_net(request, stages)
    _show(screen, folder, result, own)


def _check_options(subject: str, own: bool, **given: str | bool | None) -> None:
    """`UserError` for options of the other kind of subject, and for a module without its data."""
    wrong = [name for name in (("design", "device", "precisions") if own else ("data", "size")) if given[name]]
    if wrong:
        kind, other = ("module", "run") if own else ("run", "module given as package.module:function")
        raise UserError(f"--{wrong[0]} belongs to a {other}, {subject!r} is a {kind}: drop it")
    if own and not given["data"]:
        raise UserError(f"module {subject!r} does not say on what data it is judged: give --data")


def _show(screen: Screen, folder: Path, result: Result, own: bool) -> None:
    from edgemtl.files.disk import read_json
    from edgemtl.nas.prune import PRUNING_FILE
    from edgemtl.results import RESULT_FILE

    if not screen.as_json:
        pruning = read_json(folder / PRUNING_FILE, "pruning")
        try:
            _groups(screen, pruning)
        except (KeyError, TypeError) as error:
            raise UserError(f"pruning {folder / PRUNING_FILE} is damaged ({error}): prune again") from error
        show_result(screen, result)
        for layer, reason in pruning.get("whole", {}).items():
            screen.note(f"note: channels of {layer} stay: {reason}")
        if pruning.get("not_exported"):
            screen.note(f"note: no engine was written: {pruning['not_exported']}")
        after = f"edgemtl.nas.prune.apply_pruning(module, {str(folder)!r})" if own else f"edgemtl train --run {folder}"
        screen.say(f"written: {folder / RESULT_FILE}; next: {after}")
    screen.json(read_json(folder / RESULT_FILE, "result"))


def _groups(screen: Screen, pruning: dict[str, Any]) -> None:
    rows = []
    for group in pruning["groups"]:
        tasks = group["tasks"]
        reached = ", ".join(map(str, tasks)) if isinstance(tasks, list) else None
        rows.append((group["group"], reached, group["before"], group["after"], group["blocked_by"]))
    screen.table("Which task blocked which group", ("group", "reaches", "channels", "kept", "blocked by"), rows)
