"""Cost of a step of the sandwich, and training throughput of the default space on this machine.

`supernet_speed` is the time that the designs of a step (the largest, the smallest and two random ones) take when each
is a net of its own in training, on the same images with the same threads, over the time of the supernet's step: above
1 sharing weights costs less than training apart. The supernet's step has what they do not: slices of shared weights
and distillation; it has one update where they have four. Both are taken in turns (A B B A), new random designs each
time, after one step of each that does not count. `floor_share` is the part of the supernet's step that its floor takes:
the designs' convolutions alone, forward and backward, at their shapes and in the step's precision, without a
normalisation, activation, loss or update around them. How many FLOPs these are, and at what rate they run, is told too.

Then images a second of such steps at half the input size by whole runs of `edgemtl train` in turns, data loading and
augmentation included: FP32 against BF16, one process with all cores against a process per core. A run is ended once its
last step is done: the scores that would follow are not measured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from _common import Outcome, Row, main, say
from accelerate import Accelerator

from edgemtl.data.scenes import ScenesSource
from edgemtl.nas.runs import OneDesign
from edgemtl.spaces import Design, Space, load_space
from edgemtl.train import Recipe, SupernetTraining, fresh_supernet, training_batches

BATCH = 16
POLL_SECONDS = 0.5
RECIPE = Recipe(steps=1000, batch=BATCH, sizes=(0.5,), largest_steps=0.0)


def run(options: argparse.Namespace) -> Outcome:
    """The step against its nets, then whole runs."""
    seconds, flops = _step_against_nets(3 if options.quick else 16)
    whole = {name: sum(values) for name, values in seconds.items()}
    rows = [
        Row("supernet_speed", whole["nets"] / whole["supernet"], "x", 0.6, 0.9, lower_is_better=False),
        Row("floor_share", whole["floor"] / whole["supernet"], "x", None, None, lower_is_better=False),
        Row("floor_rate", flops / whole["floor"] / 1e9, "GFLOP/s", None, None, lower_is_better=False),
    ]
    speeds = _throughput(options.quick)
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    rows += [Row(name, value, "images/s") for name, value in medians.items()]
    rows.append(Row("bf16_gain", medians["bf16_one_process"] / medians["fp32_one_process"], "x"))
    rows.append(Row("processes_gain", medians["bf16_process_per_core"] / medians["bf16_one_process"], "x"))
    return Outcome(rows, {"step_seconds": seconds, "images_per_second": speeds, "cores": os.cpu_count()})


def _step_against_nets(rounds: int) -> tuple[dict[str, list[float]], float]:
    """Seconds of steps, of their nets in trainings of their own, and of their convolutions; FLOPs of the latter."""
    source = ScenesSource((192, 256), train=64)
    space = load_space("cnn", source.tasks)
    training = SupernetTraining(space, RECIPE, fresh_supernet(space, 0), None, Accelerator())
    feed = training_batches(source.split("train"), source.tasks, RECIPE, 0, 0)
    seconds: dict[str, list[float]] = {"supernet": [], "nets": [], "floor": []}
    flops = 0.0
    for step, batch in zip(range(rounds), feed, strict=False):
        designs = [space.largest(), *map(space.design, training.narrow_designs(step))]
        nets = [_alone(space, training, design) for design in designs]
        calls = {
            "supernet": lambda step=step, batch=batch: training.one_step(step, batch),
            "nets": lambda nets=nets, batch=batch: [net.one_step(0, batch) for net in nets],
            "floor": _convolutions(designs, batch.image.shape, torch.bfloat16 if training.bf16 else torch.float32),
        }
        for call in calls.values():
            call()
        for name in ("supernet", "nets", "floor", "floor", "nets", "supernet"):
            seconds[name].append(_timed(calls[name]))
        side = batch.image.shape[2] / space.size[0]
        flops += 2 * 3 * side**2 * len(batch.image) * sum(design.cost().flops for design in designs)
        say(f"round {step + 1} of {rounds}: {seconds['nets'][-1] / seconds['supernet'][-1]:.2f} x")
    return seconds, flops


def _convolutions(designs: Sequence[Design], shape: tuple[int, ...], dtype: torch.dtype) -> Callable[[], None]:
    """Forward and backward of every convolution of the designs, with nothing between them."""
    scale = shape[2] / designs[0].plan.input_size[0]
    convs = [conv for design in designs for block in design.plan.blocks for conv in block.convs]
    prepared = []
    for conv in convs:
        sides = (round(conv.height * scale) * conv.stride, round(conv.width * scale) * conv.stride)
        layer = torch.nn.Conv2d(
            conv.inputs, conv.outputs, conv.kernel, conv.stride, conv.kernel // 2, groups=conv.groups, bias=False
        )
        image = torch.randn(shape[0], conv.inputs, *sides, dtype=dtype).to(memory_format=torch.channels_last)
        layer = layer.to(dtype=dtype, memory_format=torch.channels_last)
        prepared.append((layer, image.requires_grad_(conv.inputs > 3)))

    def call() -> None:
        for layer, image in prepared:
            given = layer(image)
            given.backward(torch.ones_like(given))

    return call


def _alone(space: Space, training: SupernetTraining, design: Design) -> SupernetTraining:
    """A net of the design, in a training of its own."""
    one = OneDesign(design, training.supernet.extract(design), "")
    return SupernetTraining(one, replace(RECIPE, largest_steps=1.0), one.supernet(), None, training.accelerator)


def _timed(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def _throughput(quick: bool) -> dict[str, list[float]]:
    """Train a little, several times; a run's speed is the median of its reports but for the first one's."""
    kinds = {
        "fp32_one_process": ["--no-bf16", "--batch", str(BATCH)],
        "bf16_one_process": ["--batch", str(BATCH)],
        "bf16_process_per_core": ["--batch", str(BATCH), "--processes", str(os.cpu_count() or 1)],
    }
    speeds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(1 if quick else 2):
        for name, arguments in kinds.items():
            speeds[name].append(_speed(arguments, 40 if quick else 80))
    return speeds


def _speed(arguments: list[str], steps: int) -> float:
    with tempfile.TemporaryDirectory() as folder:
        common = ["--images", "512", "--steps", str(steps), "--largest-steps", "0", "--sizes", "0.5"]
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "edgemtl", "train", *common, *arguments, "--out", str(out)]
        say(f"$ {' '.join(command[2:])}")
        with subprocess.Popen(command, stdout=sys.stderr) as process:
            while not (records := _records(out / "train.jsonl")) or records[-1]["step"] < steps:
                if process.poll() is not None:
                    raise SystemExit(f"the training ended with status {process.returncode} before its last step")
                time.sleep(POLL_SECONDS)
            process.kill()  # its helpers end with it
    return statistics.median([float(record["images_per_second"]) for record in records][1:])


def _records(log: Path) -> list[dict[str, Any]]:
    """The reports of a training this far, in whole lines."""
    text = log.read_text() if log.is_file() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


if __name__ == "__main__":
    main(run, __doc__)
