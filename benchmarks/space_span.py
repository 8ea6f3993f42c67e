"""Cost of one change from the largest design in the shipped supernet: each smaller option of each choice, alone.

A row `CHOICE=OPTION` is delta_m; where the choice is one task's own, as the depth of its decoder, `CHOICE=OPTION of
TASK` is that task's relative change: the others hardly feel it, and delta_m hides three quarters of it. Weights are the
supernet's as they are, statistics of batch normalisation are measured on training images, scores are those of
validation images, which decide: no test image is read. An option that costs as much alone as a middle design may cost
altogether makes every design that has it a bad one, and takes part in half of the draws of training.
`middle_by_statistics` is the largest change of a task's score of the middle design by statistics of eight times as many
images: how much of all this they can be blamed for.

The table in docs/spaces.md is of a kept run (`readme_table.py` writes it there). --quick looks at the smallest option
of each choice, on a quarter of the images.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping

import torch
from _common import Outcome, Row, main, say
from _runs import scenes_supernet

from edgemtl.data import Source, open_source
from edgemtl.models import Supernet, recalibrate
from edgemtl.spaces import Choice, Design, Option, Space
from edgemtl.tasks import Task, delta_m, relative_change
from edgemtl.train import batches_of, evaluate

IMAGES = 64
BATCH = 16
MORE_STATISTICS = 8
Metrics = dict[str, dict[str, float]]


def run(options: argparse.Namespace) -> Outcome:
    """Every change alone, all of them together, which is the smallest design, and the part of statistics."""
    space, supernet = scenes_supernet()
    source, images = open_source("scenes", space.size), IMAGES // 4 if options.quick else IMAGES
    base = _scores(supernet, space.largest(), source, images)
    rows, changes = [], {}
    for choice, option, design in changes_of(space, smallest_only=options.quick):
        metrics = _scores(supernet, design, source, images)
        changes.setdefault(choice.name, {})[str(option)] = relative_changes(source.tasks, metrics, base)
        rows += rows_of(choice, option, changes[choice.name][str(option)])
        say(f"{rows[-1].name}: {rows[-1].value:+.1f} %")
    smallest = _scores(supernet, space.smallest(), source, images)
    rows.append(Row("smallest", 100 * delta_m(source.tasks, smallest, base), "%", lower_is_better=False))
    few, many = (_scores(supernet, space.middle(), source, images, n * images) for n in (1, MORE_STATISTICS))
    by_statistics = relative_changes(source.tasks, many, few)
    rows.append(Row("middle_by_statistics", 100 * max(map(abs, by_statistics.values())), "%"))
    raw = {"images": images, "largest": base, "smallest": smallest, "changes": changes, "by_statistics": by_statistics}
    return Outcome(rows, raw)


def changes_of(space: Space, smallest_only: bool = False) -> Iterator[tuple[Choice, Option, Design]]:
    """Designs that differ from the largest in one choice, with the choice and its option."""
    largest = space.largest()
    for choice in space.architecture:
        for option in choice.options[:1] if smallest_only else choice.options[:-1]:
            design = space.design({**largest, choice.name: option})
            if design != largest:  # as another kernel of blocks that have one size only
                yield choice, option, design


def relative_changes(tasks: tuple[Task, ...], metrics: Metrics, base: Metrics) -> dict[str, float]:
    """Fractions by which the tasks' deciding metrics changed, above zero where they are better."""
    return {task.name: relative_change(task, metrics[task.name], base[task.name]) for task in tasks}


def rows_of(choice: Choice, option: Option, changes: Mapping[str, float]) -> list[Row]:
    """delta_m of a change, and what it costs the task whose choice it is, if it is one task's."""
    name, mean = f"{choice.name}={option}", sum(changes.values()) / len(changes)
    rows = [Row(name, 100 * mean, "%", lower_is_better=False)]
    if choice.task is not None:
        rows.append(Row(f"{name} of {choice.task}", 100 * changes[choice.task], "%", lower_is_better=False))
    return rows


def _scores(
    supernet: Supernet, design: Design, source: Source, images: int, statistics_images: int | None = None
) -> Metrics:
    net = supernet.extract(design)
    train = batches_of(source.split("train"), BATCH, statistics_images or images)
    recalibrate(net, (torch.from_numpy(batch.image) for batch in train))
    validation = batches_of(source.split("validation"), BATCH, images, tasks=source.tasks)
    return evaluate(net, source.tasks, validation)


if __name__ == "__main__":
    main(run, __doc__)
