"""`edgemtl tasks`."""

from __future__ import annotations

from dataclasses import asdict

import click

from edgemtl.cli.own_net import print_proposal
from edgemtl.cli.screen import Screen
from edgemtl.cli.verb import verb

__all__ = ["tasks"]

SMALL = (64, 64)


@verb(
    "tasks",
    examples=(
        "edgemtl tasks",
        "edgemtl tasks --data scenes",
        "edgemtl tasks --data photos/data.yaml --format json",
        "edgemtl tasks --net pose.onnx > tasks.yaml   # edit it, then edgemtl export pose.onnx --tasks tasks.yaml",
    ),
)
@click.option("--data", metavar="DATA", help="List the tasks of a data set: scenes, elpv, or the path of a YAML file.")
@click.option(
    "--net",
    metavar="NET",
    help="Propose the tasks of a net of your own, an ONNX file or package.module:function, as YAML to be edited.",
)
@click.option("--size", metavar="HxW", help="For a net whose input has no fixed size: 192x256.")
def tasks(screen: Screen, data: str | None, net: str | None, size: str | None) -> None:
    """List the kinds of task that a data set may have, one data set's tasks, or those of a net of your own.

    Of several metrics, the first one decides.
    """
    from edgemtl.errors import UserError

    if data is not None and net is not None:
        raise UserError("--data and --net are both given: give the one whose tasks are wanted")
    if size is not None and net is None:
        raise UserError(f"--size {size} belongs to a net of one's own: give --net, or drop it")
    if net is not None:
        print_proposal(screen, net, size)
        return
    if data is not None:
        _of_data(screen, data)
        return
    from edgemtl.tasks import KINDS, find_kind, make_task

    kinds = []
    for name in KINDS.names():
        try:
            kind = find_kind(name)
            if kind.labels is not None:
                kinds.append((kind, make_task("any", name, kind.channels or 2)))
        except UserError as error:  # one broken package must not hide the other kinds
            screen.note(f"warning: {error}")
    if not screen.as_json:
        rows = [
            (
                kind.name,
                "a map" if task.dense else "one value per image",
                kind.channels or "any",
                kind.loss,
                ", ".join(f"{m.name} {'up' if m.higher_is_better else 'down'}" for m in kind.metrics),
                kind.postprocess.name,
            )
            for kind, task in kinds
        ]
        screen.table("Kinds of task", ("kind", "predicts", "channels", "loss", "metrics", "afterwards"), rows)
    screen.json(
        [
            {
                "name": kind.name,
                "channels": kind.channels,
                "loss": kind.loss,
                "metrics": [asdict(metric) for metric in kind.metrics],
                "postprocess": asdict(kind.postprocess),
                "outputs": [asdict(output) for output in task.outputs],
            }
            for kind, task in kinds
        ]
    )


def _of_data(screen: Screen, data: str) -> None:
    from edgemtl.data import open_source
    from edgemtl.tasks import kind_of

    source = open_source(data, SMALL)
    if not screen.as_json:
        rows = [
            (task.name, task.kind, task.channels, kind_of(task).loss, task.metric.name, ", ".join(task.classes) or None)
            for task in source.tasks
        ]
        screen.table(f"Tasks of {source.name}", ("task", "kind", "channels", "loss", "decides", "classes"), rows)
        if source.license_note:
            screen.say(source.license_note)
    screen.json([asdict(task) for task in source.tasks])
