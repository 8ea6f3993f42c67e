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
        "edgemtl prune theirs.onnx --tasks tasks.yaml --data photos --budget 50%FLOPs --finetune 2000",
    ),
)
@click.argument("subject", metavar="RUN_OR_NET")
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
@click.option(
    "--data",
    metavar="DATA",
    help="For a net of one's own: a data set, as in a search; with --tasks a folder of pictures without labels, too.",
)
@click.option("--tasks", metavar="FILE", help="For an ONNX file or a module: its tasks, as edgemtl export reads them.")
@click.option("--size", metavar="HxW", help="For a net of one's own: its input size; a module's is 192x256 by default.")
@click.option("--finetune", metavar="STEPS", type=int, help="For a net of one's own: train what is left so many steps.")
@click.option(
    "--train-step",
    metavar="FUNCTION",
    help="With --finetune: package.module:train_step; by default it learns from itself.",
)
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
    tasks: str | None,
    size: str | None,
    finetune: int | None,
    train_step: str | None,
    fast: bool,
    device: str | None,
    precisions: bool,
    out: Path | None,
    resume: bool,
) -> None:
    """Remove channels of a design, or of a net of your own, until it keeps a budget; every task is watched.

    Channels that belong together over all tasks go together; each task whose output they reach may block their removal.
    Writes a run that exports, profiles and reports like any other; train it further with edgemtl train --run, which
    the unpruned net then teaches.

    A module is given as package.module:function, and --data with it: the function, which is imported and called,
    returns a torch.nn.Module that maps images to a dict of one tensor a task, or of a dict of outputs where a task has
    several. edgemtl.nas.prune.apply_pruning cuts such a module as the folder that is written says.

    An ONNX file, or a module, with --tasks needs no labels: with a folder of pictures as --data it is compared with
    itself; with a data set each task is judged by its own metric. It learns from itself. Its folder holds an ONNX file
    for edgemtl export.
    """
    from edgemtl.nas.prune import MODULE_FILE, DeclaredModule, FineTuning, PruneRequest, RunDesign, UserModule
    from edgemtl.nas.prune import prune as prune_net
    from edgemtl.own import is_own_net
    from edgemtl.runs import CONFIG_FILE

    own = is_own_net(subject)
    _check_options(
        subject, own, design=design, device=device, precisions=precisions, data=data, tasks=tasks, size=size,
        finetune=finetune, train_step=train_step,
    )  # fmt: skip
    folder, command = new_run(out, "pruned", resume), shlex.join(["edgemtl", *sys.argv[1:]])
    opening: RunDesign | DeclaredModule | UserModule
    if not own:
        opening = RunDesign(Path(subject), design or "best", device, precisions)
    elif tasks is not None:
        opening = DeclaredModule(subject, Path(tasks), data or "", parse_size(size))
    else:
        opening = UserModule(subject, data or "", parse_size(size) or UserModule.size)
    tuning = FineTuning(finetune or 0, train_step or "")
    request = PruneRequest(opening, folder, tuple(budgets), tuple(floors), fast, tuning, resume, command)
    usable = f"what was tried is kept; go on with: {resume_line(folder)}"
    with interruptible(usable, [folder / CONFIG_FILE, folder / MODULE_FILE]), Stages() as stages:
        result = prune_net(request, stages)
    _show(screen, folder, result, own)


_OF_RUN = ("design", "device", "precisions")
_OF_NET = ("data", "tasks", "size", "finetune", "train_step")


def _check_options(subject: str, own: bool, **given: str | bool | int | None) -> None:
    """`UserError` for options of the other kind of subject, and for a net without its data or its tasks."""
    wrong = [name for name in (_OF_RUN if own else _OF_NET) if given[name]]
    if wrong:
        kind, other = ("net of one's own", "run") if own else ("run", "net of one's own")
        raise UserError(f"--{wrong[0].replace('_', '-')} belongs to a {other}, {subject!r} is a {kind}: drop it")
    if own and not given["data"]:
        raise UserError(
            f"{subject!r} does not say on what data it is judged: give --data, a data set, or with --tasks a folder of "
            "pictures"
        )
    if own and ":" not in subject and not given["tasks"]:
        raise UserError(
            f"{subject!r} does not say which outputs are which task: give --tasks; `edgemtl tasks --net {subject}` "
            "prints them to begin with"
        )
    if own and not given["tasks"] and (data := Path(str(given["data"]))).is_dir() and not any(data.glob("*.y*ml")):
        raise UserError(
            f"--data {data} holds no data set's YAML file: with photos alone give --tasks, which says what outputs are "
            f"which task (`edgemtl tasks --net {subject}` prints them to begin with)"
        )


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
            screen.note(f"note: nothing was exported: {pruning['not_exported']}")
        screen.say(f"written: {folder / RESULT_FILE}; next: {_next(folder, own)}")
    screen.json(read_json(folder / RESULT_FILE, "result"))


def _next(folder: Path, own: bool) -> str:
    """The command, or the call, that goes on with what was written."""
    from edgemtl.nas.prune import NET_FILE, TASKS_FILE

    if (folder / NET_FILE).is_file():
        net, tasks = folder / NET_FILE, folder / TASKS_FILE
        return f"edgemtl export {net} --tasks {tasks} --target onnxruntime --out {folder / 'bundle'}"
    return f"edgemtl.nas.prune.apply_pruning(module, {str(folder)!r})" if own else f"edgemtl train --run {folder}"


def _groups(screen: Screen, pruning: dict[str, Any]) -> None:
    rows = []
    for group in pruning["groups"]:
        tasks = group["tasks"]
        reached = ", ".join(map(str, tasks)) if isinstance(tasks, list) else None
        rows.append((group["group"], reached, group["before"], group["after"], group["blocked_by"]))
    screen.table("Which task blocked which group", ("group", "reaches", "channels", "kept", "blocked by"), rows)
