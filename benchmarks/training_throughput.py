"""Training throughput of the default space on this machine: images a second, FP32 against BF16, interleaved.

A sandwich step trains the largest, the smallest and a random design; 128x128 crops, batch 16, data loading left out.
"""

from __future__ import annotations

import argparse
import random
import time

import torch
from _common import Outcome, Row, main

from edgemtl.data.scenes import CLASSES
from edgemtl.nas import Space, load_space
from edgemtl.tasks import make_task

BATCH, CROP = 16, 128
TASKS = [
    make_task("semseg", "segmentation", classes=CLASSES),
    make_task("depth", "depth"),
    make_task("normals", "normals"),
    make_task("edges", "edges"),
]


def step(space: Space, net: torch.nn.Module, image: torch.Tensor, bf16: bool, narrow: bool) -> None:
    """Forward and backward of one training step's designs, with a loss of every output."""
    designs = [space.largest(), *([space.smallest(), space.random(random.Random(0))] if narrow else [])]
    for design in designs:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            outputs = net(image, design)
        torch.stack([output.float().square().mean() for output in outputs.values()]).sum().backward()


def run(options: argparse.Namespace) -> Outcome:
    """Time steps of four kinds in turns."""
    space = load_space("cnn", TASKS)
    net = space.supernet()
    image = torch.randn(BATCH, 3, CROP, CROP).to(memory_format=torch.channels_last)
    kinds = {f"{p}_{k}": (p == "bf16", k == "sandwich") for p in ("fp32", "bf16") for k in ("largest", "sandwich")}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(3 if options.quick else 9):
        for name, (bf16, narrow) in kinds.items():
            start = time.perf_counter()
            step(space, net, image, bf16, narrow)
            if number:
                seconds[name].append(time.perf_counter() - start)
    medians = {name: sorted(values)[len(values) // 2] for name, values in seconds.items()}
    rows = [Row(name, BATCH / value, "images/s", None, None, False) for name, value in medians.items()]
    rows.append(
        Row("bf16_speedup_sandwich", medians["fp32_sandwich"] / medians["bf16_sandwich"], "x", None, None, False)
    )
    return Outcome(rows, {"seconds": seconds, "threads": torch.get_num_threads()})


if __name__ == "__main__":
    main(run, __doc__)
