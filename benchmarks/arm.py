"""Engines of every family and precision on emulated Arm processors against the simulation of the Arm scheme.

Boards are processors that QEMU emulates, reached over ssh on loopback; edgemtl's agent opens the engines there with the
aarch64 wheels of ONNX Runtime and OpenVINO. What is computed is what the board computes, how long it takes says
nothing: nothing is timed. Nets of the shipped supernets see test images of the scenes, the net of the grid, which has
no supernet, pictures whose truth is about what it predicts. Needs root, QEMU, debootstrap, gcc and an OpenSSH server.
Finished comparisons are kept: `--minutes` bounds a piece of the run, and the same command goes on.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from _cases import Cases, add_minutes, cases_of
from _common import Outcome, Row, main, say
from _runs import scenes_evaluator, size_of, supernet_hash

sys.path.append(str(Path(__file__).parents[1] / "tests" / "shelf"))
from arm_board import CPUS, emulated_board, missing

from edgemtl.data import Sample, collate
from edgemtl.devices import HOST, Device, any_processor, load_device
from edgemtl.models import MultiTaskNet
from edgemtl.models.quantization import Ranges, calibrate, simulate
from edgemtl.profiling import board_at, find_measurer
from edgemtl.targets import ExportTarget, find_target
from edgemtl.tasks import by_tensor, map_outputs, relative_change
from edgemtl.testing import grid_net, images, mixed_precision, samples_for
from edgemtl.train import Scorer

SUPERNETS = {"cnn": "cnn", "vit": "moe-vit"}
"""The space of the shipped supernet of each family that has one."""
RUNTIMES = ("onnxruntime", "openvino")
QUICK_BOARD = "raspberry-pi-5"
LEAST_CHANGE = 0.5


@dataclass(frozen=True)
class ScoredNet:
    """A net with the images it is scored on, and its calibrated ranges."""

    net: MultiTaskNet
    ranges: Ranges
    samples: Sequence[Sample]


def scored_nets(size: tuple[int, int], count: int) -> dict[str, ScoredNet]:
    """The smallest design of each family, which has every kind of operator that the family has."""
    nets = {}
    for family, name in SUPERNETS.items():
        space, evaluator = scenes_evaluator("onnxruntime", name, size)
        candidate = evaluator.candidate(space.smallest())
        calibrated = evaluator.ranges(candidate.net)
        nets[family] = ScoredNet(candidate.net, calibrated, evaluator.test_samples[:count])
    net = grid_net()
    return {**nets, "grid": ScoredNet(net, calibrate(net, images(8, net.input_size)), samples_for(net, count))}


def compared(scored: ScoredNet, precision: Mapping[str, str], target: ExportTarget, device: Device) -> dict[str, float]:
    """Share of equal values, their largest difference (of the output's range), the largest change of any metric."""
    simulation = simulate(scored.net, precision, scored.ranges, target.scheme)
    scorers = {name: Scorer(scored.net.tasks) for name in ("engine", "simulation")}
    same, total, apart = 0, 0, 0.0
    for batch, engine in on_board(scored, precision, target, device):
        with torch.no_grad():
            expected = map_outputs(torch.Tensor.numpy, simulation(torch.from_numpy(batch.image)))
        scorers["engine"].update(engine, batch)
        scorers["simulation"].update(expected, batch)
        values = by_tensor(engine)
        for name, value in by_tensor(expected).items():
            same, total = same + int((value == values[name]).sum()), total + value.size
            apart = max(apart, float(np.abs(value - values[name]).max() / np.ptp(value)))
    scores = {name: scorer.compute() for name, scorer in scorers.items()}
    changes = (relative_change(task, *(scores[name][task.name] for name in scorers)) for task in scored.net.tasks)
    return {"equal": same / total, "largest_difference": apart, "metric_change": max(map(abs, changes))}


def on_board(
    scored: ScoredNet, precision: Mapping[str, str], target: ExportTarget, device: Device
) -> Iterator[tuple[Any, Any]]:
    """Each image as a batch, with the raw outputs of all tasks as the board computes them."""
    tasks = [task.name for task in scored.net.tasks]
    with TemporaryDirectory() as folder:
        target.build(scored.net, precision, scored.ranges, Path(folder))
        with closing(find_measurer(device, target.traits.name).open(Path(folder), 1, [tasks])) as session:
            for sample in scored.samples:
                batch = collate([sample], scored.net.tasks)
                yield batch, session.run(batch.image, tasks)


def targets(device: Device) -> dict[str, ExportTarget]:
    """Every runtime by the board's own scheme, and as it is exported on this machine for every processor."""
    portable = any_processor(load_device(HOST))
    own = {name: find_target(name, device) for name in RUNTIMES}
    return {**own, **{f"{name}_portable": find_target(name, portable) for name in RUNTIMES}}


def precisions(net: MultiTaskNet, target: ExportTarget) -> dict[str, Mapping[str, str]]:
    """Every block in each precision that the target has, and every second one in INT8."""
    uniform = {name: {"engine": "fp32", **dict.fromkeys(net.blocks, name)} for name in target.traits.block_precisions}
    return uniform if len(uniform) < 2 else {**uniform, "mixed": mixed_precision(net, target, "fp32")}


def run(options: argparse.Namespace) -> Outcome:
    """The worst of all boards and families, for each runtime, scheme and precision."""
    if lacking := missing():
        say(f"Arm is not emulated on this machine: {lacking}")
        return Outcome([], {"reason": lacking})
    nets = scored_nets(size_of(options.size), 1 if options.quick else options.images)
    boards, raw = [QUICK_BOARD] if options.quick else list(CPUS), {}
    cases = cases_of(options, {name: supernet_hash(name) for name in SUPERNETS.values()})
    with TemporaryDirectory() as folder:
        for board in boards:
            with emulated_board(board, Path(folder) / board) as device:
                environment = board_at(device.reach).greeting["environment"]
                raw[board] = {"environment": environment, "figures": compare_all(nets, device, cases)}
    kinds = dict.fromkeys(kind for board in raw.values() for kind in board["figures"])
    rows = [row for kind in kinds for row in rows_of(kind, [raw[board]["figures"][kind] for board in boards])]
    return Outcome(rows, raw)


def compare_all(nets: Mapping[str, ScoredNet], device: Device, cases: Cases) -> dict[str, dict[str, dict[str, float]]]:
    """Figures of each family, by runtime, scheme and precision."""
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for name, target in targets(device).items():
        for family, scored in nets.items():
            for kind, precision in precisions(scored.net, target).items():
                if kind != "float" or name in RUNTIMES:  # a scheme is of INT8 alone
                    worst = figures.setdefault(f"{name}_{kind}", {})
                    case = f"{device.name} {name} {family} {kind}"
                    worst[family] = cases.result(case, partial(compared, scored, precision, target, device))
                    say(f"  {worst[family]}")
    return figures


def rows_of(kind: str, boards: Sequence[Mapping[str, Mapping[str, float]]]) -> list[Row]:
    """The worst figures of one kind; float engines add in another order, so that last bits differ."""
    figures = [each for board in boards for each in board.values()]
    change = 100 * max(each["metric_change"] for each in figures)
    rows = [Row(f"metric_change_on_{kind}", change, "%", LEAST_CHANGE, 0.0)]
    if not kind.endswith("float"):
        equal = min(each["equal"] for each in figures)
        rows.append(Row(f"equal_values_on_{kind}", equal, "fraction", None, 1.0, lower_is_better=False))
    return rows


def add(parser: argparse.ArgumentParser) -> None:
    """Options that make it smaller or larger: an emulated processor is a hundred times slower than a real one."""
    parser.add_argument("--size", default="96x128", help="input of the nets from supernets (default %(default)s)")
    parser.add_argument("--images", type=int, default=16, help="test images of each engine (default %(default)s)")
    add_minutes(parser)


if __name__ == "__main__":
    main(run, __doc__, add)
