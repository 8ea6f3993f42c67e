"""Each task's metric by C simulation of the FPGA project against float: trained weights, two tasks, test images.

The smallest design of the shipped supernet whose blocks are all fused (hls4ml has no depthwise convolutions in its
torch front end), calibrated on training images: in 16 bits, and on fewer images with every width in one net, block by
block in turns (16, 12, 10, 8). There each value of the simulation is held against the arithmetic that a search scores
designs by, too. The simulation is hls4ml's own C++, compiled by g++.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from _common import Outcome, Row, main, say
from _runs import scenes_evaluator
from numpy.typing import NDArray

from edgemtl.data import Sample
from edgemtl.devices import load_device
from edgemtl.export.parity import measure_parity
from edgemtl.models import MultiTaskNet
from edgemtl.models.quantization import Ranges
from edgemtl.runtime import Outputs
from edgemtl.spaces import Design, Space
from edgemtl.targets import HlsTarget, emulated
from edgemtl.tasks import by_tensor, relative_change

DEVICE = "zcu102"
TASKS = ("semseg", "depth")
SIZE, QUICK_SIZE = (192, 256), (96, 128)
IMAGES, MIXED_IMAGES, QUICK_IMAGES = 24, 8, 4


def run(options: argparse.Namespace) -> Outcome:
    """The change of each task's deciding metric in 16 bits, and with mixed widths; values that differ there."""
    size = QUICK_SIZE if options.quick else SIZE
    space, evaluator = scenes_evaluator("hls", size=size, device=load_device(DEVICE))
    candidate = evaluator.candidate(fused(space))
    net = candidate.net.subset(TASKS)
    assert isinstance(net, MultiTaskNet)
    ranges = candidate.ranges or evaluator.ranges(net)
    samples = evaluator.test_samples[: QUICK_IMAGES if options.quick else IMAGES]
    widths = dict(zip(net.blocks, cycle(evaluator.target.traits.block_precisions), strict=False))
    plain = simulated(net, {}, ranges, samples)
    mixed = simulated(net, widths, ranges, samples[:MIXED_IMAGES])
    rows = [Row(name, 100 * change, "%", 1.0, 0.3) for name, change in plain.changes.items()]
    rows += [Row(f"{name} with mixed widths", 100 * change, "%") for name, change in mixed.changes.items()]
    rows.append(Row("values of mixed widths that the search's arithmetic has otherwise", mixed.differing, "values", 0))
    raw = {"size": list(size), "device": DEVICE, "widths": widths, "16 bits": plain.raw, "mixed": mixed.raw}
    return Outcome(rows, raw)


@dataclass
class Simulated:
    """The relative change of each task's metric, how many values differ from the search's, and the metrics."""

    changes: dict[str, float] = field(default_factory=dict)
    differing: int = 0
    raw: dict[str, object] = field(default_factory=dict)


def simulated(net: MultiTaskNet, widths: Mapping[str, str], ranges: Ranges, samples: Sequence[Sample]) -> Simulated:
    """The net with blocks in these widths (16 bits where none is given) by C simulation on the samples."""
    target, precision = HlsTarget(load_device(DEVICE)), {"engine": "fixed", **widths}
    arithmetic, found = emulated(target, net, precision, ranges), Simulated(raw={"images": len(samples)})
    with TemporaryDirectory() as folder:
        files = target.build(net, precision, ranges, Path(folder))
        say(f"{len(files)} files written; compiling")
        with target.simulation(net, Path(folder)) as simulation:

            def compared(image: NDArray[np.float32], tasks: Sequence[str]) -> Outputs:
                outputs = simulation(image, tasks)
                searched = by_tensor(arithmetic(torch.from_numpy(image)))
                found.differing += sum(
                    int((value != searched[name].numpy()).sum()) for name, value in by_tensor(outputs).items()
                )
                return outputs

            parity = measure_parity(net, compared, samples)
    for task in net.tasks:
        each = parity[task.name]
        change = relative_change(task, {each.metric: each.engine}, {each.metric: each.torch})
        found.changes[f"{task.name}_{each.metric}"] = abs(change)
        found.raw[task.name] = each.model_dump(mode="json")
    return found


def fused(space: Space) -> Design:
    """The smallest design with a fused block wherever there is a choice."""
    blocks = {choice.name: "fused" for choice in space.choices if "fused" in choice.options}
    return space.design(blocks)


if __name__ == "__main__":
    main(run, __doc__)
