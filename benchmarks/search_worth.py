"""Whether a search is worth it: its design against what one does by hand and by pruning, at the same latency.

For each runtime a search for a share of the largest net's latency gives a design (without fine-tuning of its own).
Its rivals meet that latency. One is the largest net scaled evenly, all widths by one factor, with the first channels
of the supernet as its weights, in the uniform precision that is the fastest for the largest net; the factor is found by
timing it and the searched design in turns, and the scaled net is never the faster one by that measurement. The other is
the largest net pruned by PAGCP, `edgemtl prune --budget MS --precisions`, with the same milliseconds. All three are
then trained alike by `edgemtl train --run`, taught by the largest net, with three seeds; delta_m is against the largest
net, on test images, which decide nothing, by the real engines. At the end the latencies of all three are drawn in
turns: a rival that is more than a tenth faster has not been given what it may take.

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
from _runs import RUNS, edgemtl, scenes_evaluator, searched, size_of
from _scaled import net_of, scale_for, scaled_evenly

from edgemtl.nas.evaluation import Candidate, Evaluator
from edgemtl.nas.evaluation.finalists import timed_together
from edgemtl.nas.runs import RunFolder
from edgemtl.results import read_result
from edgemtl.spaces import Design, Space

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
    milliseconds = evaluator.time(chosen.load())[""]
    pruned = pruned_to(chosen.path, milliseconds, quick)
    scaled = RUNS / f"{name}-scaled"
    if not scaled.exists():
        with_another(pruned, scaled_to(space, evaluator, chosen.load()), scaled)
    paths = {"chosen": chosen.path, "scaled": scaled, "pruned": pruned}
    steps = options.steps or (QUICK_STEPS if quick else STEPS)
    deltas: dict[str, list[float]] = {
        each: [tuned_delta(path, steps, seed) for seed in SEEDS[: 1 if quick else None]] for each, path in paths.items()
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


def pruned_to(run: Path, milliseconds: float, quick: bool) -> Path:
    """PAGCP on the run's baseline under a latency, made once."""
    path = run.with_name(f"{run.name}-pruned")
    if not (path / "result.json").is_file():
        budget = RunFolder(path).config().budgets[0] if begun(path) else f"{milliseconds:.4g}ms"
        how = ["--design", "baseline", "--precisions", *(["--fast"] if quick else [])]
        edgemtl("prune", str(run), "--budget", budget, *how, "--out", str(path), *begun(path))
    return path


def scaled_to(space: Space, evaluator: Evaluator, chosen: Candidate, tries: int = 6) -> Candidate:
    """The largest net, scaled evenly to the latency of `chosen` in the uniform precision that is its fastest."""
    uniform = [evaluator.candidate(design) for design in space.uniform(space.largest())]
    times = timed_together(evaluator, uniform, 1)
    fastest = uniform[min(range(len(uniform)), key=lambda number: times[number][""])].design

    def made(scale: float) -> Candidate:
        return _candidate(evaluator, scaled_evenly(fastest, scale, evaluator.target.traits.channel_multiple))

    def ratio(scale: float) -> float:
        ours, scaled = (ms[""] for ms in timed_together(evaluator, [chosen, made(scale)], 2))
        say(f"scaled to {scale:.3f}: {scaled / ours:.3f} of the latency")
        return scaled / ours

    return made(scale_for(ratio, tries))


def _candidate(evaluator: Evaluator, design: Design) -> Candidate:
    net = net_of(evaluator.supernet, design)
    return Candidate(design, net, evaluator.prepare(net, design.precision).ranges)


def tuned_delta(run: Path, steps: int, seed: int) -> float:
    """delta_m on test images of a run's best design after training it further."""
    best = read_result(trained(run, run.with_name(f"{run.name}-{steps}-{seed}"), steps, "--seed", str(seed))).best
    assert best is not None and best.delta_m is not None
    return best.delta_m


def add(parser: argparse.ArgumentParser) -> None:
    """The options of size."""
    parser.add_argument("--steps", type=int, help=f"steps of each training, {STEPS} by default")
    parser.add_argument("--size", type=size_of, help=f"HEIGHTxWIDTH of images, {SIZE[0]}x{SIZE[1]} by default")


if __name__ == "__main__":
    main(run, __doc__, add)
