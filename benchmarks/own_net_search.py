"""A net as a user brings it, searched by one command to half its latency, against pruning and quantizing it by hand.

The net is a small ResNet-FPN of three tasks in plain torch (`_fpn.py`), trained here on rendered rooms until it has
learnt, once; its weights stay in `--work`. `edgemtl search` gets it as a user would give it, with a budget of half its
latency and a floor for each task, and is timed whole. By hand is torch-pruning (its magnitude and its Taylor criterion,
all groups in one list), the net then fine-tuned on labels, then ONNX Runtime's `quantize_static` or NNCF's quantizer
with a scale for each channel: of the shares of FLOPs that can be kept the largest whose engine is as fast as what the
search gave, timed in turns with it. All are scored with labels on test rooms that nothing has decided on; the searched
engine's agreement with the net in float, which the floors are of as photos have no labels, is told of the same rooms.

Finished parts are kept: `--minutes` bounds a piece of the run, and the same command goes on.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import onnx
import torch
from _by_hand import cut, flops, net_call, pruned, quantized
from _cases import Cases, add_minutes, cases_of
from _common import Outcome, Row, main, say
from _fpn import SIZE, WEIGHTS, ResNetFpn, fine_tuned, learn, loss_gradients, tasks_of, unseen_rooms
from _peers import PEERS
from _runs import ROOT, drawn
from _stock import QUANTIZERS
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from edgemtl.data import Sample, open_source
from edgemtl.files.disk import write_atomic
from edgemtl.files.images import normalize
from edgemtl.files.seals import sha256
from edgemtl.own import Agreement, Declaration, DeclaredTask, as_text
from edgemtl.runtime import open_engine
from edgemtl.tasks import Task, map_outputs, relative_change
from edgemtl.train import Scorer

BUDGET, SHARE = "50%ms", 0.5
FLOORS = {"semseg": 0.05, "depth": 0.05, "normals": 0.05}
MOST_MINUTES = 15.0
LEARNT_MIOU = 0.35
"""A net below it has not learnt: what it loses says nothing."""
SAME = 1.03
"""Of two latencies of one run; smaller differences of one file's engines are timing noise."""
NET, TARGET = "_fpn:trained", "onnxruntime"
CALIBRATION, QUICK_CALIBRATION = 128, 8
ENGINES, CUTTING_ENGINES = 6, 4
"""Of each net that is timed: two engines of one file differ in speed, by more than what a share of its FLOPs takes."""
STEPS, QUICK_STEPS = 1200, 2
"""Of fine-tuning by the search, eight images each: as many as the nets cut by hand are tuned on."""
Scores = Mapping[str, Mapping[str, float]]


def edgemtl(folder: Path, *arguments: str) -> None:
    """Run the command line in the folder of the net, as its user would; raises on a failure."""
    say("$ edgemtl " + " ".join(arguments))
    path = os.pathsep.join([str(ROOT), str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "edgemtl", *arguments]
    subprocess.run(command, check=True, stdout=sys.stderr, cwd=folder, env={**os.environ, "PYTHONPATH": path})


def prepare(folder: Path, tasks: Sequence[Task], quick: bool) -> None:
    """The tasks' file, and photos without labels, as the command reads them."""
    declared = {each.name: DeclaredTask(kind=each.kind, outputs=(each.name,), classes=each.classes) for each in tasks}
    write_atomic(folder / "tasks.yaml", as_text(Declaration(tasks=declared)).encode())
    photos = folder / "photos"
    photos.mkdir(exist_ok=True)
    for number, sample in enumerate(unseen_rooms(quick)):
        Image.fromarray(sample.image).save(photos / f"{number}.png")


def searched(folder: Path, quick: bool) -> dict[str, Any]:
    """Seconds of the whole search, begun anew, by the command; then the engines of the net in float and as chosen."""
    about = ["--tasks", "tasks.yaml", "--size", "x".join(map(str, SIZE))]
    floors = [word for task, lost in FLOORS.items() for word in ("--floor", f"{task}={100 * lost:g}%")]
    shutil.rmtree(folder / "run", ignore_errors=True)
    started = time.monotonic()
    tuning = ["--finetune", str(QUICK_STEPS if quick else STEPS)]
    limits = ["--budget", BUDGET, *floors, "--target", TARGET, *tuning]
    edgemtl(folder, "search", NET, *about, "--data", "photos", *limits, "--out", "run")
    seconds = time.monotonic() - started
    for name, precision in (("float", "float"), ("ours", "run")):
        shutil.rmtree(folder / name, ignore_errors=True)
        given = ["--precision", precision, "--data", "photos", "--target", TARGET]
        edgemtl(folder, "export", NET, *about, *given, "--out", name)
    return {"seconds": seconds}


def engine_ms(folder: Path, models: Mapping[str, onnx.ModelProto], engines: int) -> dict[str, float]:
    """Median latencies of the engines in float and as searched, and of files, in turns, over `engines` of each."""
    image = normalize(np.stack([open_source("scenes", SIZE).split("validation")[0].image]))

    def opens(stack: ExitStack) -> dict[str, Callable[[], object]]:
        own = {name: stack.enter_context(closing(open_engine(_engine(folder, name)))) for name in ("float", "ours")}
        plain = {name: partial(net_call(model), image) for name, model in models.items()}
        return {**{name: partial(session.run, image, list(FLOORS)) for name, session in own.items()}, **plain}

    return {name: samples.median_ms for name, samples in drawn(opens, engines).items()}


def _engine(folder: Path, name: str) -> Path:
    return folder / name / "engines" / TARGET


def by_hand(folder: Path, net: ResNetFpn, criterion: str, quantizer: str, quick: bool) -> dict[str, Any]:
    """The net that is pruned as little as the latency allows, fine-tuned and quantized: its file, and what it took."""
    images = calibration(QUICK_CALIBRATION if quick else CALIBRATION)

    def fast_enough(share: float) -> bool:
        model = quantized(pruned(net, criterion, share, loss_gradients), quantizer, images[:QUICK_CALIBRATION])
        ms = engine_ms(folder, {"hand": model}, 1 if quick else CUTTING_ENGINES)
        say(f"{criterion}, {quantizer}: {share:.0%} of the FLOPs take {ms['hand'] / ms['ours']:.3g} of ours")
        return ms["hand"] <= SAME * ms["ours"]

    share = cut(fast_enough)
    made = pruned(net, criterion, share, loss_gradients)
    tuned = fine_tuned(made, quick)
    path = folder / f"{criterion}-{quantizer}.onnx"
    write_atomic(path, quantized(tuned, quantizer, images).SerializeToString())
    return {"share": share, "flops": flops(made), "file": path.name}


def calibration(count: int) -> list[NDArray[np.float32]]:
    """Images of the calibration split, (1, 3, H, W) each."""
    samples = open_source("scenes", SIZE).split("calibration")
    return [normalize(np.stack([samples[number].image])) for number in range(count)]


def scores(call: Callable[[NDArray[np.float32]], Any], tasks: Sequence[Task], samples: Sequence[Sample]) -> Scores:
    """Metrics of each task over samples with labels; `call` gives each task's tensors."""
    scorer = Scorer(tasks)
    for sample in samples:
        scorer.update(call(normalize(np.stack([sample.image]))), [sample])
    return scorer.compute()


def scored(folder: Path, net: ResNetFpn, files: Mapping[str, str], quick: bool) -> dict[str, Scores]:
    """Metrics on test rooms of the net itself, of the searched engine, and of the files that were made by hand."""
    source = open_source("scenes", SIZE)
    tasks, samples = tasks_of(source), source.split("test")[: 8 if quick else None]
    result = {"float": scores(partial(_torch_outputs, net, tasks), tasks, samples)}
    with closing(open_engine(_engine(folder, "ours"))) as session:
        result["ours"] = scores(partial(session.run, tasks=list(FLOORS)), tasks, samples)
    for name, file in files.items():
        result[name] = scores(partial(_named, net_call(onnx.load(folder / file)), tasks), tasks, samples)
    majority = max(range(16), key=lambda label: sum((each.targets["semseg"] == label).sum() for each in samples))
    result["chance"] = scores(partial(_constant, tasks, majority), tasks, samples)
    return result


def agreement_of(folder: Path, net: ResNetFpn, quick: bool) -> dict[str, float]:
    """Agreement of each task of the searched engine with the net in float on test rooms: what floors are of."""
    source = open_source("scenes", SIZE)
    tasks, samples = tasks_of(source), source.split("test")[: 8 if quick else None]
    agreement = Agreement(tasks)
    with closing(open_engine(_engine(folder, "ours"))) as session:
        for sample in samples:
            image = normalize(np.stack([sample.image]))
            expected = map_outputs(Tensor.numpy, _torch_outputs(net, tasks, image))
            agreement.update(image, map_outputs(np.copy, session.run(image, list(FLOORS))), expected)
    return agreement.compute()


def _torch_outputs(net: ResNetFpn, tasks: Sequence[Task], image: NDArray[np.float32]) -> Any:
    with torch.inference_mode():
        return _named(lambda pixels: net(torch.from_numpy(pixels)), tasks, image)


def _named(call: Callable[[NDArray[np.float32]], Any], tasks: Sequence[Task], image: NDArray[np.float32]) -> Any:
    outputs = call(image)
    return {task.name: {task.outputs[0].name: outputs[task.name]} for task in tasks}


def _constant(tasks: Sequence[Task], majority: int, image: NDArray[np.float32]) -> Any:
    """The commonest class, two metres and vectors to the viewer everywhere: a net that has learnt nothing."""
    given = {task.name: np.zeros((1, task.channels, *SIZE), np.float32) for task in tasks}
    given["semseg"][:, majority], given["depth"][:], given["normals"][:, 2] = 1, np.log(2), -1
    return _named(lambda _: given, tasks, image)


def rows_of(raw: Mapping[str, Any], tasks: Sequence[Task], quick: bool) -> list[Row]:
    """Rows of what the search and the ways by hand came to; quick: without limits of quality, nothing has learnt."""
    metrics, base = raw["metrics"], raw["metrics"]["float"]
    lost = {name: {task.name: -relative_change(task, each[task.name], base[task.name]) for task in tasks}
            for name, each in metrics.items() if name not in ("float", "chance")}  # fmt: skip
    hands = [name for name in lost if name != "ours"]
    ahead = min(mean(lost[name].values()) for name in hands) - mean(lost["ours"].values())
    ms = raw["latency_ms"]
    rows = [
        Row("net_miou", base["semseg"]["miou"], "of 1", None if quick else LEARNT_MIOU, lower_is_better=False),
        Row("chance_miou", metrics["chance"]["semseg"]["miou"], "of 1"),
        Row("net_depth_rmse", base["depth"]["rmse"], "m"),
        Row("net_normals_angle", base["normals"]["mean_angle"], "deg"),
        Row("search", raw["search"]["seconds"] / 60, "min", MOST_MINUTES),
        Row("latency_over_float", ms["ours"] / ms["float"], "x", None if quick else SHARE * SAME),
    ]
    for task, most in FLOORS.items():
        least = None if quick else 100 * most
        rows.append(Row(f"agreement_lost_{task}", 100 * (1 - raw["agreement"][task]), "%", least))
        rows.append(Row(f"lost_{task}", 100 * lost["ours"][task], "%", least))
    rows.append(Row("ahead_of_best_by_hand", 100 * ahead, "points", None if quick else 0.0, lower_is_better=False))
    for name in ("ours", *hands):
        rows.append(Row(f"lost_{name}", 100 * mean(lost[name].values()), "%"))
        rows.append(Row(f"latency_{name}_over_ours", ms[name] / ms["ours"], "x"))
    return rows


def run(options: argparse.Namespace) -> Outcome:
    """Train the net, search it, make its peers by hand, score and time all; quick: one peer, next to no steps."""
    folder: Path = options.work / "quick" if options.quick else options.work
    net, tasks = learn(folder, options.quick), tasks_of(open_source("scenes", SIZE))
    prepare(folder, tasks, options.quick)
    cases = cases_of(options, {"weights": sha256(folder / WEIGHTS)})
    raw: dict[str, Any] = {"search": cases.result("search", partial(searched, folder, options.quick))}
    ways = [(criterion, quantizer) for quantizer in QUANTIZERS for criterion in PEERS][: 1 if options.quick else None]
    raw["by_hand"] = {f"{c}-{q}": _made(cases, folder, net, c, q, options.quick) for c, q in ways}
    files = {name: each["file"] for name, each in raw["by_hand"].items()}
    raw["metrics"] = cases.result("metrics", partial(scored, folder, net, files, options.quick))
    raw["agreement"] = cases.result("agreement", partial(agreement_of, folder, net, options.quick))
    models = {name: onnx.load(folder / file) for name, file in files.items()}
    raw["latency_ms"] = engine_ms(folder, models, 1 if options.quick else ENGINES)
    return Outcome(rows_of(raw, tasks, options.quick), raw)


def _made(cases: Cases, folder: Path, net: ResNetFpn, criterion: str, quantizer: str, quick: bool) -> dict[str, Any]:
    compute = partial(by_hand, folder, net, criterion, quantizer, quick)
    return dict(cases.result(f"{criterion}-{quantizer}", compute))


def add(parser: argparse.ArgumentParser) -> None:
    """The benchmark's own options."""
    default = ROOT / "build" / "own_net_search"
    parser.add_argument("--work", type=Path, default=default, help="folder of the net's weights and of what is made")
    add_minutes(parser)


if __name__ == "__main__":
    main(run, __doc__, add)
