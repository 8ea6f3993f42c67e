"""Strangers' nets at half their FLOPs, taught by themselves on unlabelled pictures: PAGCP against torch-pruning's two.

Three ONNX files from packages of the Python package index (`_own_nets.py`) are pruned by `edgemtl prune --tasks` with
`--finetune`; no label is read. torch-pruning's group-magnitude and group-Taylor pruners rank the channels of the same
groups of the same module in one list until its FLOPs are ours or just below, and are fine-tuned with the same function,
steps, batches and pictures, at each of two rates: that of the better agreement on the third that decides stays. The
pictures are real photos of Python's and Debian's packages, and rendered rooms (`_photos.py`; `--photos FOLDER` takes
others). A head's agreement is one less the norm of the difference over the norm of the float net's values, over the
real photos of the third that nothing has trained or decided on. Finished parts are kept, and a training goes on where
it was stopped: `--minutes` bounds a piece of the run, and the same command goes on.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from _cases import Cases, add_minutes, cases_of
from _common import Outcome, Row, main, say
from _own_nets import NETS, fetch
from _peers import PEERS, prune_by_peer
from _photos import photos
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from edgemtl.files.disk import write_atomic
from edgemtl.files.images import normalize, read_picture, resize_picture
from edgemtl.nas.prune import DeclaredModule, FineTuning, PruneRequest, apply_pruning, fine_tune, prune
from edgemtl.own import DeclaredNet, as_text, read_photos
from edgemtl.progress import Progress

CHOSEN = ("mtcnn-onet", "centerface", "ppocr-v4-detector")
QUICK = ("mtcnn-onet",)
BUDGET = "50%FLOPs"
STEPS, QUICK_STEPS = 800, 10
ROUNDS, GRADIENT_IMAGES = 100, 16
PEERS_RATES = (1e-3, 1e-4)
LEAST, AIM = 3.0, 1.0


def real_photos(pictures: Sequence[Path], size: tuple[int, int]) -> Tensor:
    """The real photos among some pictures, normalised; all of them where none is called real."""
    paths = [path for path in pictures if path.name.startswith("real-")] or list(pictures)
    return torch.from_numpy(normalize(np.stack([resize_picture(read_picture(path), size) for path in paths])))


def agreements(net: DeclaredNet, whole: DeclaredNet, images: Tensor) -> dict[str, float]:
    """The agreement of each head with the whole net's, over all images."""
    sums = {f"{task.name}.{output.name}": np.zeros(2) for task in whole.tasks for output in task.outputs}
    with torch.inference_mode():
        for image in images.split(1):
            given, expected = net(image), whole(image)
            for task, outputs in expected.items():
                for name, value in outputs.items():
                    apart = (given[task][name] - value).square().sum()
                    sums[f"{task}.{name}"] += float(apart), float(value.square().sum())
    return {name: 1 - float((apart / max(norm, 1e-30)) ** 0.5) for name, (apart, norm) in sums.items()}


def flops(net: nn.Module, size: tuple[int, int]) -> int:
    with torch.enable_grad(), FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, 3, *size))
    return int(counter.get_total_flops())


def report(progress: Progress) -> None:
    every = 1 if progress.total < 50 else 50
    if progress.total and progress.done % every == 0:
        say(f"{progress.stage} {progress.done}/{progress.total} {progress.text}")


def run_net(name: str, cases: Cases, options: argparse.Namespace) -> dict[str, Any]:
    """FLOPs, and agreement of each head, of ours and of the peers: a case each."""
    work = cases.own_folder(options.nets / ("prune-quick" if options.quick else "prune")) / name
    tuning = FineTuning(QUICK_STEPS if options.quick else options.steps)
    ours = cases.result(f"{name}, ours", lambda: _ours(_subject(name, work, options), tuning, work / "ours"))
    made = {"ours": ours}
    for peer in PEERS:

        def compute(peer: str = peer) -> dict[str, Any]:
            return _peer(_subject(name, work, options), peer, ours["flops"], tuning, work / peer)

        made[peer] = cases.result(f"{name}, {peer}", compute)
    parts = {part: {who: each[part] for who, each in made.items()} for part in ("flops", "heads")}
    return {**parts, "whole": ours["whole"], "images": ours["images"]}


def _subject(name: str, work: Path, options: argparse.Namespace) -> DeclaredModule:
    """A net as the verb prunes it."""
    path, pictures = fetch(name, options.nets), photos(options.photos)
    work.mkdir(parents=True, exist_ok=True)
    write_atomic(work / "tasks.yaml", as_text(NETS[name].declaration()).encode())
    return DeclaredModule(str(path), work / "tasks.yaml", str(pictures), NETS[name].size)


def _ours(subject: DeclaredModule, tuning: FineTuning, out: Path) -> dict[str, Any]:
    """FLOPs before and after, and agreement of each head, of what the verb makes."""
    prune(
        PruneRequest(
            subject, out, (BUDGET,), fast=True, tuning=tuning, resume=True, command="benchmarks/own_nets_prune.py"
        ),
        report,
    )
    whole = _net(subject.open())
    net = whole.with_module(apply_pruning(whole.module, out), whole.tasks).eval()
    images = real_photos(read_photos(Path(subject.data)).test, whole.input_size)
    counts = {"flops": flops(net, whole.input_size), "whole": flops(whole, whole.input_size), "images": len(images)}
    return {**counts, "heads": agreements(net, whole, images)}


def _net(opened: Any) -> DeclaredNet:
    whole = opened.prunable.net
    assert isinstance(whole, DeclaredNet)
    return whole


def _peer(subject: DeclaredModule, peer: str, limit: int, tuning: FineTuning, folder: Path) -> dict[str, Any]:
    """FLOPs, and agreement of each head, of what a peer makes of the net at a limit of FLOPs."""
    opened = subject.open()
    whole, cut, photos_of = _net(opened), _cut(opened, PEERS[peer](), limit), read_photos(Path(subject.data))
    deciding, reported = (real_photos(each, whole.input_size) for each in (photos_of.validation, photos_of.test))
    nets = dict[float, DeclaredNet]()
    for rate in PEERS_RATES:
        nets[rate] = cut.copy()
        own = replace(tuning, learning_rate=rate)
        fine_tune(nets[rate], whole, opened.prunable.criterion.source, own, folder / f"{rate:g}", report)
    decided = {rate: mean(agreements(net, whole, deciding).values()) for rate, net in nets.items()}
    best = max(decided, key=lambda rate: decided[rate])
    counts = {
        "flops": flops(cut, whole.input_size),
        "rate": best,
        "deciding": {f"{k:g}": v for k, v in decided.items()},
    }
    return {**counts, "heads": agreements(nets[best], whole, reported)}


def _cut(opened: Any, importance: Any, limit: int) -> DeclaredNet:
    """A copy of the net that a peer prunes to at most so many FLOPs, in the groups that ours may cut."""
    whole, prunable = opened.prunable.net, opened.prunable
    net = whole.copy()
    free = {f"module.{layer}" for group in prunable.groups for layer in group.convolutions}
    layers = [
        module
        for name, module in net.named_modules()
        if isinstance(module, nn.Linear | nn.modules.conv._ConvNd) and name not in free
    ]
    dimensions = {f"module.{name}": axis for name, axis in whole.module.dimensions.items()}
    prune_by_peer(
        net,
        torch.zeros(1, 3, *net.input_size),
        importance,
        ROUNDS,
        lambda: flops(net, net.input_size) <= limit,
        lambda: _gradients(net, opened),
        round_to=prunable.multiple,
        ignored_layers=[layer for layer in layers if getattr(layer, "groups", 1) == 1],
        unwrapped_parameters=[(net.get_parameter(name), axis) for name, axis in dimensions.items()],
    )
    net.zero_grad()
    return net.eval()


def _gradients(net: DeclaredNet, opened: Any) -> None:
    """Gradients of the mean square of all outputs, as shares of its value: there is no label to take a loss of."""
    net.zero_grad()
    samples = opened.prunable.criterion.source.split("calibration")
    images = normalize(np.stack([samples[number].image for number in range(min(GRADIENT_IMAGES, len(samples)))]))
    for image in torch.from_numpy(images).split(4):
        parts = [value.square().mean() for outputs in net(image).values() for value in outputs.values()]
        torch.stack([part / part.detach().clamp(min=1e-12) for part in parts]).sum().backward()


def rows_of(results: Mapping[str, Mapping[str, Any]], quick: bool) -> list[Row]:
    """Each head's loss of agreement in percent, and how far ours is ahead of the better peer; quick: no limits."""
    least, aim, lead = (None, None, None) if quick else (LEAST, AIM, 0.0)
    lost = {name: {who: _lost(heads) for who, heads in each["heads"].items()} for name, each in results.items()}
    ahead = {name: min(mean(each[peer]) for peer in PEERS) - mean(each["ours"]) for name, each in lost.items()}
    rows = [
        Row("worst_head_lost", max(max(each["ours"]) for each in lost.values()), "%", least, aim),
        Row("least_ahead_of_best_peer", min(ahead.values()), "points", lead, None, lower_is_better=False),
    ]
    for name, each in results.items():
        rows.append(Row(f"flops_{name}", 100 * each["flops"]["ours"] / each["whole"], "%", 50.0))
        rows += [Row(f"lost_{name}_{who}", mean(values), "%") for who, values in lost[name].items()]
        rows += [Row(f"lost_{name}_{head}", 100 * (1 - value), "%") for head, value in each["heads"]["ours"].items()]
    return rows


def _lost(heads: Mapping[str, float]) -> Sequence[float]:
    return [100 * (1 - value) for value in heads.values()]


def run(options: argparse.Namespace) -> Outcome:
    """Prune every net by all three; quick: one, with next to no steps."""
    cases = cases_of(options)
    results = {name: run_net(name, cases, options) for name in (QUICK if options.quick else CHOSEN)}
    return Outcome(rows_of(results, options.quick), {"nets": results})


def add(parser: argparse.ArgumentParser) -> None:
    """The benchmark's own options."""
    default = Path(__file__).resolve().parent.parent / "build" / "own_nets"
    parser.add_argument("--nets", type=Path, default=default, help="folder of downloaded nets and of what is done")
    parser.add_argument("--photos", type=Path, default=default / "photos", help="folder of pictures without labels")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of each fine-tuning")
    add_minutes(parser)


if __name__ == "__main__":
    main(run, __doc__, add)
