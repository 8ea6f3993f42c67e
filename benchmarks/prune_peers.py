"""Against torch-pruning's group-magnitude and group-Taylor pruners: the same net, FLOPs and fine-tuning, three seeds.

Both peers rank channels of all groups in one list (global pruning) and take them in small steps, a multiple of 8 at a
time, until the FLOPs are ours or just below; the gradients of group-Taylor come from the same calibration images. The
net is the default space's largest on images of 96x128 pixels; fine-tuning is short.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from _common import Outcome, Row, main, say
from _peers import PEERS, prune_by_peer
from _prunings import pruned, trained, unpruned, with_another
from torch import nn

from edgemtl.data.scenes.source import SCENES_TASKS
from edgemtl.models import MultiTaskNet, recalibrate
from edgemtl.nas.evaluation import Candidate
from edgemtl.nas.prune import RunDesign
from edgemtl.nas.prune.run import OpenedDesign
from edgemtl.nas.runs import RunFolder
from edgemtl.results import Result, read_result
from edgemtl.spaces import prunable_channels, with_channels
from edgemtl.tasks import by_tensor, worst_task
from edgemtl.train import batches_of, task_loss

BUDGET = "40%FLOPs"
SEEDS = (0, 1, 2)
IMAGES = 32
ROUNDS = 400
SLOPES_EVERY = 20
STEPS, SHORT_STEPS = 150, 60


def run(options: argparse.Namespace) -> Outcome:
    """delta_m of each, against the unpruned net, after fine-tuning; ours must lead the better peer."""
    whole = unpruned(options.quick)
    ours = pruned(whole, "by-trial", "--budget", BUDGET, *(["--fast"] if options.quick else []))
    runs, flops = {"ours": ours}, {"ours": _flops(ours)}
    for name, importance in PEERS.items():
        runs[name] = whole.with_name(f"{whole.name}-peers-{name}")
        if not runs[name].exists():
            _peer(RunDesign(whole).open(), importance(), flops["ours"], ours, runs[name])
        flops[name] = _flops(runs[name])
        say(f"{name}: {flops[name] / 1e9:.3f} GFLOPs against {flops['ours'] / 1e9:.3f}")
    scores: dict[str, list[float]] = {name: [] for name in runs}
    worst: dict[str, list[float]] = {name: [] for name in runs}
    for seed in SEEDS[: 1 if options.quick else None]:
        for name, path in runs.items():
            result = _tuned(path, seed, options.quick)
            assert result.best is not None and result.baseline is not None and result.best.delta_m is not None
            scores[name].append(result.best.delta_m)
            worst[name].append(worst_task(SCENES_TASKS, result.best.metrics, result.baseline.metrics)[1])
    rows = [
        Row("delta_m_ahead_of_best_peer", _lead(scores), "points", 0.0, None, False),
        Row("worst_task_ahead_of_best_peer", _lead(worst), "points", None, 0.0, False),
    ]
    rows += [Row(f"delta_m_{name}", 100 * mean(values), "%") for name, values in scores.items()]
    rows += [Row(f"worst_task_{name}", 100 * mean(values), "%") for name, values in worst.items()]
    rows += [Row(f"flops_{name}_over_ours", flops[name] / flops["ours"], "x", 1.02) for name in PEERS]
    return Outcome(rows, {"delta_m": scores, "worst_task": worst, "flops": flops})


def _lead(scores: dict[str, list[float]]) -> float:
    """How far our mean is ahead of the better peer's, in points."""
    return 100 * (mean(scores["ours"]) - max(mean(scores[name]) for name in PEERS))


def _flops(run: Path) -> int:
    return RunFolder(run).load().design.cost().flops


def _tuned(path: Path, seed: int, quick: bool) -> Result:
    out = path.with_name(f"{path.name}-tuned-{seed}")
    return read_result(trained(path, out, SHORT_STEPS if quick else STEPS, "--seed", str(seed)))


def _peer(opened: OpenedDesign, importance: Any, flops: int, ours: Path, out: Path) -> None:
    """A copy of our run with the net that a peer makes at about the same FLOPs."""
    before, net = opened.candidate, opened.candidate.net.copy()
    prune_by_peer(
        net,
        torch.zeros(1, 3, *net.input_size),
        importance,
        ROUNDS,
        lambda: bool(with_channels(before.design.plan, _channels(net, before.net)).cost().flops <= flops),
        lambda: _gradients(net, opened),
        SLOPES_EVERY,
        round_to=8,
        ignored_layers=[net.get_submodule(name) for name in _ends(net)],
    )
    channels = {**dict(before.design.pruned), **_channels(net, before.net)}
    design = before.design.space.design(before.design, channels.items())
    made = MultiTaskNet(design.plan, net.tasks, net.blocks).eval()
    recalibrate(made, opened.prunable.criterion.recalibration)
    with_another(ours, Candidate(design, made, None), out)


def _gradients(net: MultiTaskNet, opened: OpenedDesign) -> None:
    """Gradients of the summed losses, as the Taylor criterion reads them."""
    net.eval().zero_grad()
    source = opened.prunable.criterion.source
    for batch in batches_of(source.split("calibration"), 16, IMAGES, tasks=source.tasks):
        outputs = net(torch.from_numpy(batch.image))
        losses = [
            task_loss(
                t, outputs[t.name], torch.from_numpy(batch.targets[t.name]), torch.from_numpy(batch.masks[t.name])
            )
            for t in source.tasks
        ]
        torch.stack(losses).sum().backward()


def _ends(net: MultiTaskNet) -> list[str]:
    """The layers that give the tasks' outputs."""
    last = [f"blocks.{block}." for block in by_tensor(net.outputs).values()]
    return [
        name
        for name, module in net.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear) and name.startswith(tuple(last))
    ]


def _channels(net: MultiTaskNet, whole: MultiTaskNet) -> dict[str, int]:
    """Output channels of every convolution of a pruned net, by its plan's name."""
    found = {}
    for name in prunable_channels(whole.plan):
        module = net.blocks.get_submodule(name)
        layer = module if isinstance(module, nn.Linear) else module.get_submodule("conv")
        found[name] = len(layer.get_parameter("weight"))
    return found


if __name__ == "__main__":
    main(run, __doc__)
