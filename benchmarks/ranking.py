"""Whether the supernet ranks designs as they rank when each is trained alone: Kendall's tau of the two orders.

Twelve designs are spread over the whole range of FLOPs, the largest and the smallest among them, and twelve over those
within 20 % of 1.5 GFLOPs; both dozens share what they can. In the supernet a design is scored as a search does it: cut
out, its statistics measured anew, on validation images. Alone it begins with the same fresh values as all the others
(what two designs have in common begins alike), is trained for the same number of steps on the same images, and is
scored on test images, which is what a user would get. A design's score is delta_m against the supernet's largest net
on the same images; all are in FP32. An order says nothing before there is something to order, so every net trained
alone must have learnt: the least mIoU among them is a row with a bound of its own.

About 22 trainings on images of 96x128 pixels, at which they take a quarter of what they take at the space's own size:
an hour on two cores with AVX-512. Each is kept in --work and gone on with after a kill. --quick trains seven designs
for some steps on smaller images, in two minutes: enough to see that it runs, too little for its figures to hold.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from _common import Outcome, Row, main, say
from _figures import kendall
from _runs import RUNS, scenes_evaluator, size_of
from _trainings import scored_on_test, trained_alone

from edgemtl.data.scenes import ScenesSource
from edgemtl.models import Supernet
from edgemtl.spaces import Design, Space, is_precision, load_space
from edgemtl.tasks import Task, delta_m
from edgemtl.train import Recipe, fresh_supernet

COUNT, QUICK_COUNT = 12, 4
STEPS, QUICK_STEPS = 1500, 40
IMAGES, QUICK_IMAGES = 8192, 256
SIZE, QUICK_SIZE = (96, 128), (64, 96)
MIDDLE_FLOPS, NEAR = 1.5e9, 0.2
DRAWS = 600
LEARNT_MIOU = 0.25
Metrics = dict[str, dict[str, float]]


class Pool(NamedTuple):
    """Designs over the whole range of FLOPs, and those near the middle."""

    whole: list[Design]
    near: list[Design]


def draw_pool(space: Space, count: int, seed: int = 0) -> Pool:
    """Architectures in float: `count` over the whole range, at even ratios of FLOPs, and `count` near the middle.

    Whichever of the former lie near the middle are the first of the latter.
    """
    rng = random.Random(seed)
    ends = [space.smallest(), space.largest()]
    draws = {d.key: d for d in (in_float(space.random(rng)) for _ in range(DRAWS))}
    low, high = (design.cost().flops for design in ends)
    inner = nearest(list(draws.values()), list(np.geomspace(low, high, count)[1:-1]))
    whole = [ends[0], *inner, ends[1]]
    near = [design for design in whole if is_near(design)]
    others = [d for d in draws.values() if is_near(d) and d not in whole]
    wanted = np.linspace(1 - NEAR, 1 + NEAR, count - len(near) + 2)[1:-1] * MIDDLE_FLOPS
    return Pool(whole, [*near, *nearest(others, list(wanted))])


def nearest(designs: Sequence[Design], wanted: Sequence[float]) -> list[Design]:
    """For each FLOPs that are wanted the design that is nearest by ratio, each once; fewer where designs run out."""
    left, chosen = list(designs), []
    for flops in wanted[: len(left)]:
        best = min(left, key=lambda design: abs(np.log(design.cost().flops / flops)))
        left.remove(best)
        chosen.append(best)
    return chosen


def in_float(design: Design) -> Design:
    """The architecture with every block in float."""
    space = design.space
    return space.design({c.name: c.options[0] if is_precision(c) else design[c.name] for c in space.choices})


def is_near(design: Design) -> bool:
    """Whether a design lies within 20 % of the middle."""
    return abs(design.cost().flops / MIDDLE_FLOPS - 1) <= NEAR


def rows_of(
    pool: Pool, in_supernet: Callable[[Design], float], alone: Callable[[Design], float], miou: Sequence[float]
) -> list[Row]:
    """Both taus, and whether all that was trained alone has learnt."""
    taus = {
        name: kendall([in_supernet(d) for d in designs], [alone(d) for d in designs])
        for name, designs in pool._asdict().items()
    }
    return [
        Row("tau_over_the_whole_range", taus["whole"], "", 0.75, 0.9, lower_is_better=False),
        Row("tau_near_the_middle", taus["near"], "", 0.4, 0.6, lower_is_better=False),
        Row("least_miou_trained_alone", min(miou), "", LEARNT_MIOU, None, lower_is_better=False),
    ]


def run(options: argparse.Namespace) -> Outcome:
    """Score the pool in the supernet, train it, score it again."""
    quick = options.quick
    steps = options.steps or (QUICK_STEPS if quick else STEPS)
    space, evaluator = scenes_evaluator("onnxruntime", size=options.size or (QUICK_SIZE if quick else SIZE))
    full_size = load_space("cnn", space.tasks)  # FLOPs and the middle are those of the space's own size
    pool = draw_pool(full_size, options.designs or (QUICK_COUNT if quick else COUNT))
    designs = {design.key: design for design in (*pool.whole, *pool.near)}
    narrow = {
        key: space.design({c.name: design[c.name] for c in space.architecture}) for key, design in designs.items()
    }
    in_supernet = {}
    for key, design in narrow.items():
        in_supernet[key] = evaluator.simulated(evaluator.candidate(design))
        say(f"{len(in_supernet)}/{len(narrow)} in the supernet: {designs[key].cost().flops / 1e9:.2f} GFLOPs")
    base = evaluator.candidate(space.largest())
    source = ScenesSource(space.size, train=options.images or (QUICK_IMAGES if quick else IMAGES))
    bases = {"validation": evaluator.simulated(base), "test": scored_on_test(base.net, space.tasks, source)}
    alone = _trained(narrow, source, steps, options.work)
    scores = {
        "supernet": _deltas(space.tasks, in_supernet, bases["validation"]),
        "alone": _deltas(space.tasks, alone, bases["test"]),
    }
    rows = rows_of(
        pool,
        lambda design: scores["supernet"][design.key],
        lambda design: scores["alone"][design.key],
        [metrics["semseg"]["miou"] for metrics in alone.values()],
    )
    raw = {
        key: {
            "design": dict(narrow[key]),
            "flops": design.cost().flops,
            "near_the_middle": is_near(design),
            "delta_m_in_the_supernet": scores["supernet"][key],
            "delta_m_trained_alone": scores["alone"][key],
            "in_the_supernet": in_supernet[key],
            "trained_alone": alone[key],
        }
        for key, design in designs.items()
    }
    members = {name: [design.key for design in each] for name, each in pool._asdict().items()}
    return Outcome(rows, {"size": space.size, "steps": steps, "baseline": bases, **members, "designs": raw})


def _trained(designs: dict[str, Design], source: ScenesSource, steps: int, work: Path) -> dict[str, Metrics]:
    """Test scores of each design after a training of its own, all from one fresh supernet."""
    for split in ("train", "test"):
        source.prepare(split, 2)
    recipe = Recipe(steps=steps, largest_steps=1.0)
    space = next(iter(designs.values())).space
    fresh: Supernet = fresh_supernet(space, recipe.seed)
    scores = {}
    for key, design in designs.items():
        net = trained_alone(design, fresh.extract(design), source, recipe, work / key)
        scores[key] = scored_on_test(net, space.tasks, source)
        say(f"{len(scores)}/{len(designs)} trained alone: {scores[key]}")
    return scores


def _deltas(tasks: Sequence[Task], metrics: dict[str, Metrics], base: Metrics) -> dict[str, float]:
    return {key: delta_m(tasks, each, base) for key, each in metrics.items()}


def add(parser: argparse.ArgumentParser) -> None:
    """The options of size; what is not given is the full run's, or the quick one's."""
    parser.add_argument("--work", type=Path, default=RUNS / "ranking", help="where trained nets are kept")
    parser.add_argument("--designs", type=int, help=f"designs in each range, {COUNT} by default")
    parser.add_argument("--steps", type=int, help=f"steps of each training, {STEPS} by default")
    parser.add_argument("--images", type=int, help=f"rendered images to train on, {IMAGES} by default")
    parser.add_argument("--size", type=size_of, help=f"HEIGHTxWIDTH of images, {SIZE[0]}x{SIZE[1]} by default")


if __name__ == "__main__":
    main(run, __doc__, add)
