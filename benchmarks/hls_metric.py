"""Each task's metric by C simulation of the FPGA project against float: trained weights, two tasks, test images.

The smallest design of the shipped supernet whose blocks are all fused (hls4ml has no depthwise convolutions in its
torch front end), in 16 bits, calibrated on training images. The simulation is hls4ml's own C++, compiled by g++.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

from _common import Outcome, Row, main, say
from _runs import scenes_evaluator

from edgemtl.devices import load_device
from edgemtl.export.parity import measure_parity
from edgemtl.models import MultiTaskNet
from edgemtl.spaces import Design, Space
from edgemtl.targets import HlsTarget
from edgemtl.tasks import relative_change

DEVICE = "zcu102"
TASKS = ("semseg", "depth")
SIZE, QUICK_SIZE = (192, 256), (96, 128)
IMAGES, QUICK_IMAGES = 24, 4


def run(options: argparse.Namespace) -> Outcome:
    """The largest change of each task's deciding metric."""
    size = QUICK_SIZE if options.quick else SIZE
    space, evaluator = scenes_evaluator("hls", size=size, device=load_device(DEVICE))
    candidate = evaluator.candidate(fused(space))
    net, target = candidate.net.subset(TASKS), HlsTarget(load_device(DEVICE))
    assert isinstance(net, MultiTaskNet)
    ranges = candidate.ranges or evaluator.ranges(net)
    samples = evaluator.test_samples[: QUICK_IMAGES if options.quick else IMAGES]
    with TemporaryDirectory() as folder:
        files = target.build(net, {"engine": "fixed"}, ranges, Path(folder))
        say(f"{len(files)} files written; compiling")
        with target.simulation(net, Path(folder)) as simulated:
            parity = measure_parity(net, simulated, samples)
    rows, raw = [], {"images": len(samples), "size": list(size), "device": DEVICE}
    for task in net.tasks:
        each = parity[task.name]
        change = abs(relative_change(task, {each.metric: each.engine}, {each.metric: each.torch}))
        rows.append(Row(f"{task.name}_{each.metric}", 100 * change, "%", 1.0, 0.3))
        raw[task.name] = each.model_dump(mode="json")
    return Outcome(rows, raw)


def fused(space: Space) -> Design:
    """The smallest design with a fused block wherever there is a choice."""
    blocks = {choice.name: "fused" for choice in space.choices if "fused" in choice.options}
    return space.design(blocks)


if __name__ == "__main__":
    main(run, __doc__)
