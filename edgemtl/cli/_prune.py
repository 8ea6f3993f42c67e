"""`edgemtl prune`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from edgemtl.cli._screen import Screen
from edgemtl.cli._search import Stages
from edgemtl.cli._tables import show_result
from edgemtl.cli._verb import interruptible, new_run, resume_line, verb

__all__ = ["prune"]


@verb(
    "prune",
    examples=(
        "edgemtl prune runs/first --budget 40%FLOPs --floor depth=2% --out runs/pruned",
        "edgemtl prune runs/first --budget 50%params --fast",
        "edgemtl prune runs/first --design baseline --budget 1.5GFLOPs --budget 3MB --precisions",
        "edgemtl train --run runs/pruned --steps 1000 --out runs/pruned-tuned",
    ),
)
@click.argument("run", type=click.Path(path_type=Path))
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
    metavar="TASK=PERCENT",
    multiple=True,
    help="A task's own limit: depth=2% lets depth lose 2 % at most against the run's baseline.",
)
@click.option("--design", metavar="NAME", default="best", show_default=True, help="Which of the run's designs.")
@click.option("--fast", is_flag=True, help="Decide by the design's sensitivity map, which is measured once and kept.")
@click.option("--precisions", is_flag=True, help="Choose the precision anew for the pruned net.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="The run's folder; the next free runs/pruned-N by default."
)
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
def prune(
    screen: Screen,
    run: Path,
    budgets: Sequence[str],
    floors: Sequence[str],
    design: str,
    fast: bool,
    precisions: bool,
    out: Path | None,
    resume: bool,
) -> None:
    """Remove channels of a design until it keeps a budget, with every task watched.

    Channels that belong together over all tasks go together; each task whose output they reach may block their removal.
    Writes a run that exports, profiles and reports like any other; train it further with edgemtl train --run, which
    the unpruned net then teaches.
    """
    from edgemtl._files import read_json
    from edgemtl.nas import PRUNING_FILE, PruneRequest
    from edgemtl.nas import prune as prune_run
    from edgemtl.results import RESULT_FILE

    folder = new_run(out, "pruned", resume)
    request = PruneRequest(
        run=run,
        out=folder,
        budgets=tuple(budgets),
        floors=tuple(floors),
        design=design,
        fast=fast,
        precisions=precisions,
        resume=resume,
        command=shlex.join(["edgemtl", *sys.argv[1:]]),
    )
    usable = f"what was tried is kept; go on with: {resume_line(folder)}"
    with interruptible(usable), Stages(screen) as news:
        result = prune_run(request, news)
    if not screen.as_json:
        _groups(screen, read_json(folder / PRUNING_FILE, "pruning"))
        show_result(screen, result)
        screen.say(f"written: {folder / RESULT_FILE}; next: edgemtl train --run {folder}")
    screen.json(read_json(folder / RESULT_FILE, "result"))


def _groups(screen: Screen, pruning: dict[str, list[dict[str, object]]]) -> None:
    rows = []
    for group in pruning["groups"]:
        tasks = group["tasks"]
        reached = ", ".join(map(str, tasks)) if isinstance(tasks, list) else None
        rows.append((group["group"], reached, group["before"], group["after"], group["blocked_by"]))
    screen.table("Which task blocked which group", ("group", "reaches", "channels", "kept", "blocked by"), rows)
