"""`edgemtl data`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from edgemtl.cli.screen import Screen
from edgemtl.cli.stages import Stages
from edgemtl.cli.verb import interruptible, verb
from edgemtl.errors import UserError

if TYPE_CHECKING:
    from edgemtl.data.folder import CheckReport

__all__ = ["data"]

SHOWN_CLASSES = 60


@click.group("data")
def data() -> None:
    """Work with your own data set."""


@verb("check", examples=("edgemtl data check photos", "edgemtl data check photos/data.yaml --format json"))
@click.argument("path", metavar="PATH")
def check(screen: Screen, path: str) -> None:
    """Read every file of a data set and report everything that is wrong with it.

    PATH is its YAML file, or the folder of its data.yaml. Prints the counts of each split, task and class, and
    each problem once, with the number of files and one example. Problems make the data set unusable: the exit
    status is then 1. Warnings may be intended. `edgemtl train` does the quick part of this at its start.
    """
    from edgemtl.data import source_names
    from edgemtl.data.folder import check_folder

    if path in source_names():
        raise UserError(f"{path} comes with edgemtl, there is nothing to check: give the path of your own data.yaml")
    with interruptible("nothing was changed: call the same command again"), Stages() as stages:
        report = check_folder(path, stages)
    if not screen.as_json:
        _show(screen, path, report)
    screen.json({"usable": not report.problems, **asdict(report)})
    if report.problems:
        files = sum(finding.count for finding in report.problems)
        raise UserError(
            f"data set {path} cannot be used: {files} problem{'s'[: files - 1]} of "
            f"{len(report.problems)} kind{'s'[: len(report.problems) - 1]}, listed above; mend them and check again"
        )


def _show(screen: Screen, path: str, report: CheckReport) -> None:
    tasks = next(iter(report.labelled.values()))
    images = [
        (split, count, *(f"{share:.0%}" for share in report.labelled[split].values()))
        for split, count in report.images.items()
    ]
    screen.table(f"Images of {path}, and how many of them have a label", ("split", "images", *tasks), images)
    classes = [
        (task, name, *(report.classes[split].get(task, {}).get(name) for split in report.images))
        for task, name in _classes(report)
    ]
    if classes:
        title = "Classes, in pixels (in images where a task has one value an image)"
        screen.table(title, ("task", "class", *report.images), classes[:SHOWN_CLASSES])
    if len(classes) > SHOWN_CLASSES:
        screen.say(f"and {len(classes) - SHOWN_CLASSES} more classes, which --format json shows")
    ranges = [
        (task, *(_range(report.ranges[split].get(task)) for split in report.images))
        for task in dict.fromkeys(task for by_task in report.ranges.values() for task in by_task)
    ]
    if ranges:
        screen.table("Smallest and largest value", ("task", *report.images), ranges)
    for title, findings in (("Problems", report.problems), ("Warnings", report.warnings)):
        screen.say(f"{title}:" if findings else f"{title}: none")
        for finding in findings:
            screen.say(f"  {finding}")


def _classes(report: CheckReport) -> list[tuple[str, str]]:
    """Every task's classes, in their order."""
    counted = ((task, name) for by_task in report.classes.values() for task in by_task for name in by_task[task])
    return list(dict.fromkeys(counted))


def _range(ends: tuple[float, float] | None) -> str | None:
    return None if ends is None else f"{ends[0]:.4g} to {ends[1]:.4g}"


data.add_command(check)
