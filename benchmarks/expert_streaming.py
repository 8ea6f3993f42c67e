"""Weights that the expert-by-expert executor holds at once, as a mixture-of-experts ViT-S gets 4, 8, 16 and 32 experts.

The stream counts what it holds. In M3ViT's net, with experts in every second block, that is two layers of a dense MLP,
which are larger than two experts; with experts in every block it is two experts. As a check, each engine runs in a
process of its own, which also says by how much its resident set grew from before it was opened to after its runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import torch
from _common import Outcome, Row, main, say
from _vit_small import EXPERTS, LARGEST, SIZE, tasks
from resident_memory import resident_bytes

from edgemtl.models import MultiTaskNet
from edgemtl.models._vit import VitSpec, vit_plan
from edgemtl.runtime import EngineSpec, open_engine
from edgemtl.runtime._streaming import StreamingSession
from edgemtl.targets import find_target

COUNTS = (4, 8, 16, 32)
LAYOUTS = {"every_second_block": 2, "every_block": 1}
QUICK = {"width": 96, "head_width": 32, "heads": [3], "depth": [4], "hidden": [384], "decoder": {"width": [16]}}
QUICK_HIDDEN, QUICK_SIZE = 96, (64, 64)
RUNS = 5


def vit(count: int, every: int, quick: bool) -> MultiTaskNet:
    """The net of one task with `count` experts, of which every token goes to as many as in `_vit_small`."""
    torch.manual_seed(0)
    changed = {"count": count, "kept": [count], "every": every} | ({"hidden": QUICK_HIDDEN} if quick else {})
    experts = {**EXPERTS, **changed}
    spec = VitSpec.model_validate({**(QUICK if quick else LARGEST), "experts": experts})
    return MultiTaskNet(vit_plan(spec, tasks(1), {}, QUICK_SIZE if quick else SIZE), tasks(1)).eval()


def counted(folder: Path) -> dict[str, Any]:
    """What an engine held and read in this process, and what that grew by."""
    image = np.random.default_rng(0).standard_normal(EngineSpec.read(folder).input, np.float32)
    np.matmul(np.ones((256, 256), np.float32), np.ones((256, 256), np.float32))  # its library's own buffers
    before = resident_bytes()
    session = open_engine(folder)
    assert isinstance(session, StreamingSession)
    times = []
    for _ in range(RUNS):
        start = perf_counter()
        session.run(image, ["task0"])
        times.append(1000 * (perf_counter() - start))
    return {
        "peak_weight_bytes": session.peak_weight_bytes,
        "read_bytes_per_image": session.read_bytes,
        "weight_bytes": session.weight_bytes,
        "resident_growth_bytes": resident_bytes() - before,
        "median_ms": median(times),
    }


def measured(count: int, every: int, quick: bool) -> dict[str, Any]:
    """`counted` for a net of `count` experts, in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        find_target("streaming").build(vit(count, every, quick), {}, None, Path(scratch))
        command = [sys.executable, __file__, "--engine", scratch]
        found: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    say(f"{count} experts: {found}")
    return found


def run(options: argparse.Namespace) -> Outcome:
    """The largest peak over the smallest, and all weights of the most experts over what is held of them."""
    rows, raw = [], {}
    for name, every in LAYOUTS.items():
        found = {count: measured(count, every, options.quick) for count in COUNTS}
        peaks = [each["peak_weight_bytes"] for each in found.values()]
        most = found[COUNTS[-1]]
        held = most["weight_bytes"] / most["peak_weight_bytes"]
        rows.append(Row(f"{name}_largest_peak_over_smallest", max(peaks) / min(peaks), "x", 1.05))
        rows.append(Row(f"{name}_all_weights_over_peak", held, "x", lower_is_better=False))
        raw[name] = {str(count): each for count, each in found.items()}
    return Outcome(rows, {"by_experts": raw, "runs": RUNS})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--engine"]:
        print(json.dumps(counted(Path(sys.argv[2]))))
    else:
        main(run, __doc__)
