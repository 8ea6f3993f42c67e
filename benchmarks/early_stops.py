"""Images that floors save: how many of a design's validation images are scored before it is clear that it misses one.

Designs are drawn from the shipped supernet, in float, with the smallest and the middle one; a floor lets each task lose
5 % of its deciding metric against the largest design. What each image tells is computed once; the images then come in
many orders. `scored_TASK` is the mean share of images that are scored of designs that miss the task's floor, in raw
figures for each design beside what it loses. `stopped_though_kept` is the share of orders in which a design is stopped
whose floor is exactly what it has, which the bound says is at most 0.02 %.

--quick takes the smallest and the middle design, and few orders.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping
from dataclasses import replace
from statistics import fmean

from _common import Outcome, Row, main, say
from _runs import scenes_evaluator

from edgemtl.data import Batch
from edgemtl.models import TaskNet
from edgemtl.nas.evaluation.by_image import by_image
from edgemtl.nas.evaluation.evaluator import VALIDATION_IMAGES
from edgemtl.nas.evaluation.stopping import WRONG_CHANCE, Audit, ByImage, Watch, image_order, watch_floors
from edgemtl.spaces import Design, Space
from edgemtl.tasks import Floor, Task, parse_floor
from edgemtl.train import Scorer, batches_of, raw_outputs, subsample

LOSS = "5%"
BATCH = 8
DESIGNS, ORDERS = 8, 50
QUICK_ORDERS = 8
Metrics = Mapping[str, Mapping[str, float]]


def run(options: argparse.Namespace) -> Outcome:
    """Every floor against every design, in many orders."""
    space, evaluator = scenes_evaluator("onnxruntime")
    tasks, orders = evaluator.source.tasks, QUICK_ORDERS if options.quick else ORDERS
    samples = subsample(evaluator.source.split("validation"), VALIDATION_IMAGES[0])
    batches = list(batches_of(samples, BATCH, tasks=tasks))
    floors = [parse_floor(f"{task.name}={LOSS}", tasks) for task in tasks]
    baseline, of_largest = _scored(evaluator.candidate(space.largest()).net, batches, floors)
    labels = {task.name: [int(mask.sum()) for batch in batches for mask in batch.masks[task.name]] for task in tasks}
    shares: dict[str, list[dict[str, float]]] = {task.name: [] for task in tasks}
    wrong = []
    for number, design in enumerate(designs_of(space, 2 if options.quick else DESIGNS)):
        metrics, of_design = _scored(evaluator.candidate(design).net, batches, floors)
        for floor in floors:
            watch = watch_floors([floor], baseline, of_largest, labels)
            just_kept = watch_floors([exactly(floor.task, metrics)], baseline, of_largest, labels)
            assert watch is not None and just_kept is not None
            share = fmean(scored(watch, of_design, f"{number}/{order}") for order in range(orders))
            wrong += [scored(just_kept, of_design, f"{number}/{order}") < 1 for order in range(orders)]
            shares[floor.task.name].append({"loses": -floor.change(metrics, baseline), "scored": share})
            say(f"design {number}: {floor.text}, loses {-floor.change(metrics, baseline):.1%}, scored {share:.0%}")
    missed = {name: [each["scored"] for each in of if each["loses"] > floors[0].allowed] for name, of in shares.items()}
    rows = [Row(f"scored_{name}", 100 * fmean(of), "% of the images") for name, of in missed.items() if of]
    rows.append(Row("stopped_though_kept", 100 * fmean(wrong), "%", 100 * WRONG_CHANCE))
    return Outcome(rows, {"images": len(samples), "orders": orders, "by_task": shares})


def designs_of(space: Space, count: int) -> list[Design]:
    """The smallest, the middle, and random designs, in float."""
    rng = random.Random(0)
    drawn = [space.smallest(), space.middle(), *(space.random(rng) for _ in range(count - 2))]
    return [design.in_float() for design in drawn[:count]]


def exactly(task: Task, metrics: Metrics) -> Floor:
    """The floor on a task's deciding metric that is just kept by these metrics."""
    floor = parse_floor(f"{task.name}={LOSS}", [task])
    return replace(floor, allowed=metrics[task.name][task.metric.name], relative=False)


def scored(watch: Watch, of_design: ByImage, key: str) -> float:
    """The share of images after which the floor is given up, 1 where it never is."""
    audit = Audit(watch)
    for number, image in enumerate(image_order(key, watch.images), 1):
        one = ByImage(
            *({n: [each[image]] for n, each in part.items()} for part in (of_design.scores, of_design.counts))
        )
        audit.add([image], one)
        if audit.broken and number % BATCH == 0:
            return number / watch.images
    return 1.0


def _scored(net: TaskNet, batches: list[Batch], floors: list[Floor]) -> tuple[Metrics, ByImage]:
    """A net's metrics on all images, and what each of them tells."""
    scorer, parts = Scorer([floor.task for floor in floors]), []
    for batch in batches:
        outputs = raw_outputs(net, batch)
        scorer.update(outputs, batch)
        parts.append(by_image(outputs, batch, floors))
    return scorer.compute(), ByImage.joined(parts)


if __name__ == "__main__":
    main(run, __doc__)
