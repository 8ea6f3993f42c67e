"""A ViT with experts against the dense ViT of equal FLOPs, trained for the same number of steps, three seeds.

Both are trained for all tasks of a data set at once, `scenes` at 96x128 and the photos of `elpv` at 128x128; a dense
ViT for each task alone, trained for as many steps, is what both are held against too. A task's path has equal FLOPs in
all of them, but for the routers: 16 experts of a quarter of the MLP, of which a token goes to 4. Two more nets with
experts cost less to run: `bounded` ones take at most 1.25 times an even share of an image's tokens, and in the last (on
`scenes` only) a token goes to 3 of those. The dense ViT runs its trunk once for all tasks, those with experts once a
task from their first experts on. What these two have in common begins with the same random values and sees the same
images in the same order, so that the luck of a seed is in both. Scores are of test images, which decide nothing;
trainings are kept in `runs/`.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from _common import Outcome, Row, main, say
from _runs import RUNS

from edgemtl.data import ElpvSource, Source
from edgemtl.data.scenes import ScenesSource
from edgemtl.models import Supernet, load_supernet, recalibrate
from edgemtl.spaces import Space, load_space
from edgemtl.tasks import Task, delta_m
from edgemtl.train import InitialWeights, Recipe, batches_of, evaluate, fresh_supernet, train_supernet

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
STEPS, QUICK_STEPS = 500, 40
IMAGES, QUICK_IMAGES = 2048, 256
SIZES = {"scenes": (96, 128), "elpv": (128, 128)}
Scores = dict[str, dict[str, float]]


def run(options: argparse.Namespace) -> Outcome:
    """Mean and spread of delta_m over the seeds, on each data set."""
    scenes = ScenesSource(SIZES["scenes"], train=QUICK_IMAGES if options.quick else IMAGES)
    for split in ("train", "test"):
        scenes.prepare(split, 2)
    rows: list[Row] = []
    raw = {}
    kinds = ("experts",) if options.quick else tuple(EXPERTS)
    for source in (scenes, ElpvSource(SIZES["elpv"])):
        ahead, against_single, raw[source.name] = compared(
            source, kinds if source is scenes else kinds[:2], options.quick
        )
        prefix = "" if source is scenes else f"{source.name}_"
        for kind, found in ahead.items():
            name = f"{prefix}delta_m_of_{kind.replace('-', '_')}_to_dense"
            rows.append(Row(name, statistics.mean(found), "%", 0.0, 2.0, lower_is_better=False))
        for kind in ("experts", "dense"):
            mean = statistics.mean(found[kind] for found in against_single)
            rows.append(Row(f"{prefix}delta_m_of_{kind}_to_one_net_a_task", mean, "%"))
    return Outcome(rows, raw)


def compared(
    source: Source, kinds: Sequence[str], quick: bool
) -> tuple[dict[str, list[float]], list[dict[str, float]], dict[str, Any]]:
    """For each seed: delta_m of every net with experts to the dense one, of all these to one net a task, and scores."""
    steps = QUICK_STEPS if quick else STEPS
    ahead: dict[str, list[float]] = {kind: [] for kind in kinds}
    against_single, scores = [], {}
    for seed in SEEDS[:1] if quick else SEEDS:
        dense = trained("dense", "", source.tasks, source, seed, steps)
        routed = {kind: trained(kind, EXPERTS[kind], source.tasks, source, seed, steps) for kind in kinds}
        alone: Scores = {}
        for task in source.tasks:
            alone |= trained(f"dense-{task.name}", "", (task,), source, seed, steps)
        for kind, found in ahead.items():
            found.append(100 * delta_m(source.tasks, routed[kind], dense))
        everything = {**routed, "dense": dense}
        against_single.append({k: 100 * delta_m(source.tasks, found, alone) for k, found in everything.items()})
        scores[f"seed{seed}"] = {**everything, "one_net_a_task": alone}
        latest = {kind: round(found[-1], 2) for kind, found in ahead.items()}
        say(f"{source.name}, seed {seed}: {latest} % of delta_m to dense, to one net a task {against_single[-1]}")
    return ahead, against_single, {"to_dense": ahead, "to_one_net_a_task": against_single, **scores}


def trained(name: str, experts: str, tasks: tuple[Task, ...], source: Source, seed: int, steps: int) -> Scores:
    """Test scores of one net after training, which is resumed where it was left."""
    data = "" if source.name == "scenes" else f"{source.name}-"
    folder = RUNS / f"quality-{data}{name}-{steps}-{seed}"
    space = space_of(folder, experts, tasks, source)
    if not (folder / "training.json").is_file():
        recipe = Recipe(steps=steps, batch=8, sizes=(1.0,), learning_rate=1e-3, largest_steps=1.0, seed=seed)
        say(f"training {folder.name}")
        initial = InitialWeights(begun_alike(space, folder, source, seed)) if experts else None
        train_supernet(space, source, recipe, folder, initial=initial)
    return scored(space, source, folder / "supernet.safetensors")


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


def scored(space: Space, source: Source, weights: Path) -> Scores:
    """Metrics of the space's one architecture on test images."""
    supernet = Supernet.of(space)
    load_supernet(supernet, weights, space.fingerprint)
    net = supernet.extract(space.largest())
    recalibrate(net, (torch.from_numpy(batch.image) for batch in batches_of(source.split("train"), 16, 128)))
    return evaluate(net, space.tasks, batches_of(source.split("test"), 16, tasks=space.tasks))


if __name__ == "__main__":
    main(run, __doc__)
