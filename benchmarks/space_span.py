"""Cost of one change from the largest design in the shipped supernet: delta_m of every smaller option of a choice.

Weights are the supernet's as they are, statistics of batch normalisation are measured on training images, scores are
those of validation images, which decide: no test image is read. An option that costs as much alone as a middle design
may cost altogether makes every design that has it a bad one, and takes part in half of the draws of training. --quick
looks at the smallest option of each choice, on a quarter of the images.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
from _common import Outcome, Row, main, say
from _runs import scenes_supernet

from edgemtl.data import Source, open_source
from edgemtl.models import Supernet, recalibrate
from edgemtl.spaces import Design, Space
from edgemtl.tasks import delta_m
from edgemtl.train import batches_of, evaluate

IMAGES = 64
BATCH = 16
Metrics = dict[str, dict[str, float]]


def run(options: argparse.Namespace) -> Outcome:
    """Every change alone, and all of them together, which is the smallest design."""
    space, supernet = scenes_supernet()
    source, images = open_source("scenes", space.size), IMAGES // 4 if options.quick else IMAGES
    base = _scores(supernet, space.largest(), source, images)
    raw: dict[str, object] = {"images": images, "largest": base}
    rows = []
    for name, design in [*_changes(space, options.quick), ("smallest", space.smallest())]:
        metrics = _scores(supernet, design, source, images)
        delta = 100 * delta_m(source.tasks, metrics, base)
        rows.append(Row(name, delta, "%", lower_is_better=False))
        raw[name] = {"metrics": metrics, "flops": design.cost().flops, "params": design.cost().params}
        say(f"{name}: {delta:+.1f} %")
    return Outcome(rows, raw)


def _changes(space: Space, quick: bool) -> Iterator[tuple[str, Design]]:
    """Designs that differ from the largest in one choice."""
    largest = space.largest()
    for choice in space.architecture:
        for option in choice.options[:1] if quick else choice.options[:-1]:
            design = space.design({**largest, choice.name: option})
            if design != largest:  # as another kernel of blocks that have one size only
                yield f"{choice.name}={option}", design


def _scores(supernet: Supernet, design: Design, source: Source, images: int) -> Metrics:
    net = supernet.extract(design)
    train = batches_of(source.split("train"), BATCH, images)
    recalibrate(net, (torch.from_numpy(batch.image) for batch in train))
    validation = batches_of(source.split("validation"), BATCH, images, tasks=source.tasks)
    return evaluate(net, source.tasks, validation)


if __name__ == "__main__":
    main(run, __doc__)
