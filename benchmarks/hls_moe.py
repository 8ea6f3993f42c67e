"""The layer of experts in HLS C++: bit for bit what the emulator computes, and how far from PyTorch in FP32.

16 experts of width 192, of which every token goes to 4, and two tasks with a router each. The C++ runs here, on the
integers of this machine's compiler; the vendor's compute the same (tests/targets/hls).
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from _common import Outcome, Row, main

from edgemtl.models import Experts
from edgemtl.spaces import ConvPlan, ExpertsPlan
from edgemtl.targets.hls.emulator import emulate
from edgemtl.targets.hls.experts import fixed_experts
from edgemtl.targets.hls.experts_project import simulate_experts, write_experts

WIDTH, EXPERTS, TOP_K = 192, 16, 4
GRID = (8, 16)
"""Tokens of an image of 128x256 in patches of 16."""
TASKS = ("semseg", "depth")
IMAGES, QUICK_IMAGES = 8, 2


def plan(task: str) -> ExpertsPlan:
    router, first, second = (
        ConvPlan(name, WIDTH, outputs, 1, 1, 1, *GRID)
        for name, outputs in ((task, EXPERTS), ("expand", WIDTH), ("project", WIDTH))
    )
    return ExpertsPlan(router, tuple(range(EXPERTS)), TOP_K, first, second)


def run(options: argparse.Namespace) -> Outcome:
    """How many values differ from the emulator's, and the largest difference from PyTorch."""
    torch.manual_seed(0)
    layer, count = Experts([plan(task) for task in TASKS]).eval(), GRID[0] * GRID[1]
    fixed = fixed_experts(layer, count)
    different, values, errors, largest = 0, 0, [], 0.0
    for _ in range(QUICK_IMAGES if options.quick else IMAGES):
        image = torch.nn.functional.layer_norm(torch.randn(1, count, WIDTH), (WIDTH,))  # as a block hands it over
        tokens = fixed.activation.integers(image[0].numpy())
        with TemporaryDirectory() as folder:
            write_experts(fixed, tokens, Path(folder))
            outputs = simulate_experts(Path(folder), fixed)
        for task, result in outputs.items():
            with torch.no_grad():
                expected = layer(image, task)[0].numpy()
            different += int((result != emulate(fixed, tokens, task)).sum())
            values += result.size
            errors.append(float(np.abs(fixed.activation.reals(result) - expected).max()))
            largest = max(largest, float(np.abs(expected).max()))
    rows = [Row("bits_differ", different, "values", 0, 0), Row("against_pytorch", max(errors), "", 1e-2, 1e-3)]
    return Outcome(rows, {"values": values, "largest_output": largest, "errors": errors})


if __name__ == "__main__":
    main(run, __doc__)
