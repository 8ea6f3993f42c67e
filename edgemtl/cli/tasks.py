"""`edgemtl tasks`."""

from __future__ import annotations

from dataclasses import asdict

import click

from edgemtl.cli.screen import Screen
from edgemtl.cli.verb import verb

__all__ = ["tasks"]

SMALL = (64, 64)


@verb(
    "tasks",
    examples=("edgemtl tasks", "edgemtl tasks --data scenes", "edgemtl tasks --data photos/data.yaml --format json"),
)
@click.option("--data", metavar="DATA", help="List the tasks of a data set: scenes, elpv, or the path of a YAML file.")
def tasks(screen: Screen, data: str | None) -> None:
    """List the kinds of task that a data set may have, or one data set's tasks.

    Of several metrics, the first one decides.
    """
    if data is not None:
        _of_data(screen, data)
        return
    from edgemtl.data.folder import folder_kinds
    from edgemtl.tasks import KINDS

    kinds = [KINDS[name] for name in folder_kinds()]
    if not screen.as_json:
        rows = [
            (
                kind.name,
                "a map" if kind.dense else "one value per image",
                kind.channels or "any",
                kind.loss,
                ", ".join(f"{m.name} {'up' if m.higher_is_better else 'down'}" for m in kind.metrics),
                kind.postprocess,
            )
            for kind in kinds
        ]
        screen.table("Kinds of task", ("kind", "predicts", "channels", "loss", "metrics", "afterwards"), rows)
    screen.json([asdict(kind) for kind in kinds])


def _of_data(screen: Screen, data: str) -> None:
    from edgemtl.data import open_source

    source = open_source(data, SMALL)
    if not screen.as_json:
        rows = [
            (task.name, task.kind, task.channels, task.loss, task.metric.name, ", ".join(task.classes) or None)
            for task in source.tasks
        ]
        screen.table(f"Tasks of {source.name}", ("task", "kind", "channels", "loss", "decides", "classes"), rows)
        if source.license_note:
            screen.say(source.license_note)
    screen.json([asdict(task) for task in source.tasks])
