"""A ViT with experts against the dense ViT of equal FLOPs, trained for the same number of steps, three seeds.

Both are trained for all tasks of a data set at once, `scenes` at 96x128 and the photos of `elpv` at 128x128; a dense
ViT for each task alone, trained for as many steps, is what both are held against too. On `scenes` the largest net of
the default space teaches all of them. A task's path has equal FLOPs in all of them, but for the routers: 16 experts of
a quarter of the MLP, of which a token goes to 4. Two more nets with experts cost less to run: `bounded` ones take at
most 1.25 times an even share of an image's tokens, and in the last (on `scenes` only) a token goes to 3 of those. The
dense ViT runs its trunk once for all tasks, those with experts once a task from their first experts on. What these two
have in common begins with the same random values and sees the same images in the same order, so that the luck of a seed
is in both. Scores are of test images, which decide nothing; trainings are kept in `runs/`, and gone on with.

Who is ahead says something only of nets that have learnt: the least mIoU on `scenes` of those for all tasks is a row of
its own. The lower limit of the 95 % interval of each mean is what must not be below zero.

A full run is 39 trainings, of which 24 are long: a night on two cores with AVX-512. --quick takes one seed and few
steps, in under three minutes, and then nothing has learnt.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from _common import Outcome, Row, main, say
from _figures import mean_interval
from _runs import RUNS, scenes_evaluator
from _trainings import scored_on_test, trained_once

from edgemtl.data import ElpvSource, Source
from edgemtl.data.scenes import ScenesSource
from edgemtl.models import MultiTaskNet, Supernet
from edgemtl.spaces import Space, load_space
from edgemtl.tasks import Task, delta_m
from edgemtl.train import Recipe, fresh_supernet

SPACE = """\
schema: edgemtl.space/1
family: vit
input: [{height}, {width}]
vit:
  stem: [16, 32, 64]
  width: 128
  head_width: 32
  heads: [4]
  depth: [6]
  hidden: [512]
  {experts}
  decoder: {{width: [32], depth: [1]}}
"""
MIXTURE = "experts: {{every: 2, count: 16, hidden: 128, kept: [16], top_k: [{top_k}], renormalise: true{bound}}}"
EXPERTS = {
    "experts": MIXTURE.format(top_k=4, bound=""),
    "bounded": MIXTURE.format(top_k=4, bound=", capacity: 1.25"),
    "bounded-top3": MIXTURE.format(top_k=3, bound=", capacity: 1.25"),
}
SEEDS = (0, 1, 2)
STEPS, QUICK_STEPS = {"scenes": 6000, "elpv": 500}, 20
IMAGES, QUICK_IMAGES = 8192, 128
LEARNT_MIOU = 0.45
SIZES = {"scenes": (96, 128), "elpv": (128, 128)}
Scores = dict[str, dict[str, float]]


def run(options: argparse.Namespace) -> Outcome:
    """Mean and interval of delta_m over the seeds, on each data set."""
    quick = options.quick
    scenes = ScenesSource(SIZES["scenes"], train=options.images or (QUICK_IMAGES if quick else IMAGES))
    for split in ("train", "test"):
        scenes.prepare(split, 2)
    rows: list[Row] = []
    raw = {}
    kinds = ("experts",) if quick else tuple(EXPERTS)
    for source in (scenes, ElpvSource(SIZES["elpv"])):
        steps = options.steps or (QUICK_STEPS if quick else STEPS[source.name])
        of_source = kinds if source is scenes else kinds[:2]
        ahead, against_single, raw[source.name] = compared(source, of_source, steps, SEEDS[: 1 if quick else None])
        prefix = "" if source is scenes else f"{source.name}_"
        for kind, deltas in ahead.items():
            rows += lead_rows(f"{prefix}delta_m_of_{kind.replace('-', '_')}_to_dense", deltas)
        for kind in ("experts", "dense"):
            mean = statistics.mean(deltas[kind] for deltas in against_single)
            rows.append(Row(f"{prefix}delta_m_of_{kind}_to_one_net_a_task", mean, "%"))
    return Outcome([*rows, learnt_row(raw["scenes"]["scores"])], raw)


def lead_rows(name: str, deltas: Sequence[float]) -> list[Row]:
    """The mean over seeds, and the lower limit of its interval, which must not be below zero."""
    interval = mean_interval(deltas)
    return [
        Row(name, interval.mean, "%", 0.0, 2.0, lower_is_better=False),
        Row(f"{name}_lower_limit", interval.low, "%", 0.0, None, lower_is_better=False),
    ]


def learnt_row(scores: Mapping[str, Mapping[str, Scores]]) -> Row:
    """The least mIoU among nets for all tasks, of all seeds."""
    miou = [
        net["semseg"]["miou"]
        for of_seed in scores.values()
        for kind, net in of_seed.items()
        if kind != "one_net_a_task"
    ]
    return Row("least_miou", min(miou), "", LEARNT_MIOU, None, lower_is_better=False)


def compared(
    source: Source, kinds: Sequence[str], steps: int, seeds: Sequence[int]
) -> tuple[dict[str, list[float]], list[dict[str, float]], dict[str, Any]]:
    """For each seed: delta_m of every net with experts to the dense one, of all these to one net a task, and scores."""
    ahead: dict[str, list[float]] = {kind: [] for kind in kinds}
    against_single, scores = [], {}
    for seed in seeds:
        dense = trained("dense", "", source.tasks, source, seed, steps)
        routed = {kind: trained(kind, EXPERTS[kind], source.tasks, source, seed, steps) for kind in kinds}
        alone: Scores = {}
        for task in source.tasks:
            alone |= trained(f"dense-{task.name}", "", (task,), source, seed, steps)
        for kind, deltas in ahead.items():
            deltas.append(100 * delta_m(source.tasks, routed[kind], dense))
        everything = {**routed, "dense": dense}
        against_single.append({k: 100 * delta_m(source.tasks, net, alone) for k, net in everything.items()})
        scores[f"seed{seed}"] = {**everything, "one_net_a_task": alone}
        latest = {kind: round(deltas[-1], 2) for kind, deltas in ahead.items()}
        say(f"{source.name}, seed {seed}: {latest} % of delta_m to dense, to one net a task {against_single[-1]}")
    return ahead, against_single, {"to_dense": ahead, "to_one_net_a_task": against_single, "scores": scores}


def trained(name: str, experts: str, tasks: tuple[Task, ...], source: Source, seed: int, steps: int) -> Scores:
    """Test scores of one net after training, which is resumed where it was left."""
    data = "" if source.name == "scenes" else f"{source.name}-"
    folder = RUNS / f"quality-{data}{name}-{steps}-{seed}"
    space = space_of(folder, experts, tasks, source)
    recipe = Recipe(steps=steps, batch=8, sizes=(1.0,), learning_rate=1e-3, largest_steps=1.0, seed=seed)
    initial = begun_alike(space, folder, source, seed) if experts else None
    teacher = cnn_teacher() if source.name == "scenes" else None
    supernet = trained_once(space, source, recipe, folder, initial=initial, teacher=teacher)
    return scored_on_test(supernet.extract(space.largest()), space.tasks, source)


@cache
def cnn_teacher() -> MultiTaskNet:
    """The largest net of the default space, ready for images of this size."""
    space, evaluator = scenes_evaluator("onnxruntime", size=SIZES["scenes"])
    return evaluator.candidate(space.largest()).net


def space_of(folder: Path, experts: str, tasks: tuple[Task, ...], source: Source) -> Space:
    """The space of one architecture, whose YAML is kept in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    text = folder / "space.yaml"
    height, width = SIZES[source.name]
    text.write_text(SPACE.format(experts=experts, height=height, width=width))
    return load_space(str(text), tasks)


def begun_alike(space: Space, folder: Path, source: Source, seed: int) -> Supernet:
    """Fresh weights; those that the dense ViT of all tasks has too are the same as its own."""
    made = fresh_supernet(space, seed)
    dense = fresh_supernet(space_of(folder / "dense", "", source.tasks, source), seed)
    with torch.no_grad():
        for name, value in dense.shared.items():
            if name in made.shared and made.shared[name].shape == value.shape:
                made.shared[name].copy_(value)
    return made


def add(parser: argparse.ArgumentParser) -> None:
    """The options of size."""
    parser.add_argument("--steps", type=int, help=f"steps of each training, {STEPS} by default")
    parser.add_argument("--images", type=int, help=f"rendered images to train on, {IMAGES} by default")


if __name__ == "__main__":
    main(run, __doc__, add)
