"""Whether a search is worth it: its design against what one does by hand and by pruning, at the same latency.

For each runtime a search for a share of the largest net's latency gives a design (without fine-tuning of its own).
Its rivals are made from the largest net in the uniform precision that is its fastest, and meet that latency. One is
scaled evenly, all widths by one factor, with the first channels of the supernet as its weights; the factor is found by
timing it and the searched design in turns, and the scaled net is never the faster one by that measurement. The other is
pruned by PAGCP, `edgemtl prune --budget MS`, with the same milliseconds. All three are then trained alike by `edgemtl
train --run`, taught by the largest net, with three seeds; delta_m is against the largest net in FP32, on test images,
which decide nothing, by the real engines. At the end the latencies of all three are drawn in turns: a rival that is
more than a tenth faster has not been given what it may take.

Two searches, two prunings by trials and 18 trainings on images of 96x128 pixels: two to three hours on two cores with
AVX-512. Everything is kept under `runs/` and gone on with after a kill. --quick takes one runtime, one seed, two
training steps and pruning by map, in under three minutes: enough to see that it runs.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from _common import Outcome, Row, main, say
from _figures import mean_interval
from _prunings import begun, trained, with_another
from _runs import edgemtl, scenes_evaluator, searched, size_of
from _scaled import net_of, scale_for, scaled_evenly

from edgemtl.nas.evaluation import Candidate, Evaluator
from edgemtl.nas.evaluation.finalists import timed_together
from edgemtl.nas.runs import RunFolder
from edgemtl.results import read_result
from edgemtl.spaces import Design, Space
from edgemtl.tasks import delta_m

TARGETS = ("onnxruntime", "openvino")
BUDGET = "45%ms"
SIZE, QUICK_SIZE = (96, 128), (64, 96)
SEEDS = (0, 1, 2)
STEPS, QUICK_STEPS = 600, 2
QUICK_EVALUATIONS = 6
ENGINES, QUICK_ENGINES = 4, 1
LEAST_SHARE_OF_LATENCY = 0.9
RIVALS = ("scaled", "pruned")


def run(options: argparse.Namespace) -> Outcome:
    """Both runtimes; with `quick` ONNX Runtime alone."""
    rows, raw = [], {}
    for target in TARGETS[: 1 if options.quick else None]:
        of_target, raw[target] = one_target(target, options)
        rows += of_target
    return Outcome(rows, raw)


def one_target(target: str, options: argparse.Namespace) -> tuple[list[Row], dict[str, object]]:
    """The three nets on one runtime."""
    quick = options.quick
    size = options.size or (QUICK_SIZE if quick else SIZE)
    name = f"{'quick-' if quick else ''}worth-{target}-{size[0]}x{size[1]}"
    evaluations = ["--evaluations", str(QUICK_EVALUATIONS)] if quick else []
    shape = ["--size", f"{size[0]}x{size[1]}"]
    chosen = searched(name, "--budget", BUDGET, "--target", target, *shape, *evaluations)
    space, evaluator = scenes_evaluator(target, size=size)
    paths = {"chosen": chosen.path, **rivals(chosen, space, evaluator, quick)}
    steps = options.steps or (QUICK_STEPS if quick else STEPS)
    base = read_result(chosen.path).baseline
    assert base is not None
    deltas: dict[str, list[float]] = {
        each: [
            delta_m(space.tasks, tuned_metrics(path, steps, seed), base.metrics)
            for seed in SEEDS[: 1 if quick else None]
        ]
        for each, path in paths.items()
    }
    nets = {each: RunFolder(path).load() for each, path in paths.items()}
    times = timed_together(evaluator, list(nets.values()), QUICK_ENGINES if quick else ENGINES)
    medians = {each: ms[""] for each, ms in zip(nets, times, strict=True)}
    say(f"{target}: delta_m {deltas}, {medians} ms")
    raw = {
        "delta_m": deltas,
        "median_ms": medians,
        "flops": {each: net.design.cost().flops for each, net in nets.items()},
        "designs": {each: net.design.as_json() for each, net in nets.items()},
        "intervals": {rival: mean_interval(leads(deltas, rival)) for rival in RIVALS},
    }
    return rows_of(target, deltas, medians), raw


def leads(deltas: Mapping[str, list[float]], rival: str) -> list[float]:
    """Points of delta_m that the searched design is ahead of a rival, a seed at a time."""
    return [100 * (ours - other) for ours, other in zip(deltas["chosen"], deltas[rival], strict=True)]


def rows_of(target: str, deltas: Mapping[str, list[float]], median_ms: Mapping[str, float]) -> list[Row]:
    """The lead over each rival, and whether the rival used the latency that it was given."""
    rows = []
    for rival in RIVALS:
        ahead = mean_interval(leads(deltas, rival)).mean
        share = median_ms[rival] / median_ms["chosen"]
        rows += [
            Row(f"{target}_ahead_of_{rival}", ahead, "points", 0.0, 3.0, lower_is_better=False),
            Row(f"{target}_latency_of_{rival}", share, "x", LEAST_SHARE_OF_LATENCY, None, lower_is_better=False),
        ]
    return rows


def rivals(chosen: RunFolder, space: Space, evaluator: Evaluator, quick: bool) -> dict[str, Path]:
    """The runs of both rivals beside the search's, each made once."""
    name, best = chosen.path.name, chosen.load()
    whole, scaled, pruned = (chosen.path.with_name(f"{name}-{each}") for each in ("whole", *RIVALS))
    if not whole.exists():
        with_another(chosen.path, fastest_uniform(space, evaluator), whole)
    if not (pruned / "result.json").is_file():
        milliseconds = f"{evaluator.time(best)['']:.4g}ms"
        budget = RunFolder(pruned).config().budgets[0] if begun(pruned) else milliseconds
        how = ["--budget", budget, *(["--fast"] if quick else [])]
        edgemtl("prune", str(whole), *how, "--out", str(pruned), *begun(pruned))
    if not scaled.exists():
        with_another(pruned, scaled_to(RunFolder(whole).load().design, evaluator, best), scaled)
    return {"scaled": scaled, "pruned": pruned}


def fastest_uniform(space: Space, evaluator: Evaluator) -> Candidate:
    """The largest net in the uniform precision in which its engine is fastest."""
    uniform = [evaluator.candidate(design) for design in space.uniform(space.largest())]
    times = timed_together(evaluator, uniform, 1)
    return min(zip(uniform, times, strict=True), key=lambda pair: pair[1][""])[0]


def scaled_to(largest: Design, evaluator: Evaluator, chosen: Candidate, tries: int = 6) -> Candidate:
    """The largest net, in its precision, scaled evenly to the latency of `chosen`."""

    def made(scale: float) -> Candidate:
        return _candidate(evaluator, scaled_evenly(largest, scale, evaluator.target.traits.channel_multiple))

    def ratio(scale: float) -> float:
        ours, scaled = (ms[""] for ms in timed_together(evaluator, [chosen, made(scale)], 2))
        say(f"scaled to {scale:.3f}: {scaled / ours:.3f} of the latency")
        return scaled / ours

    return made(scale_for(ratio, tries))


def _candidate(evaluator: Evaluator, design: Design) -> Candidate:
    net = net_of(evaluator.supernet, design)
    return Candidate(design, net, evaluator.prepare(net, design.precision).ranges)


def tuned_metrics(run: Path, steps: int, seed: int) -> dict[str, dict[str, float]]:
    """Metrics on test images of a run's best design after training it further."""
    best = read_result(trained(run, run.with_name(f"{run.name}-{steps}-{seed}"), steps, "--seed", str(seed))).best
    assert best is not None
    return best.metrics


def add(parser: argparse.ArgumentParser) -> None:
    """The options of size."""
    parser.add_argument("--steps", type=int, help=f"steps of each training, {STEPS} by default")
    parser.add_argument("--size", type=size_of, help=f"HEIGHTxWIDTH of images, {SIZE[0]}x{SIZE[1]} by default")


if __name__ == "__main__":
    main(run, __doc__, add)
