"""Weights that the expert-by-expert executor holds at once, as a mixture-of-experts ViT-S gets 4, 8, 16 and 32 experts.

The stream counts what it holds. In M3ViT's net, with experts in every second block, that is two layers of a dense MLP,
which are larger than two experts; with experts in every block it is two experts. As a check, each engine is opened and
run in a process of its own, and how much that one's resident set grew is printed too: activations, the graph's
records and NumPy's own buffers are part of it.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import closing
from pathlib import Path

import numpy as np
import torch
from _common import Outcome, Row, main, say
from _vit_small import EXPERTS, LARGEST, SIZE, tasks

from edgemtl.models import MultiTaskNet
from edgemtl.profiling.opening import measure_opening
from edgemtl.runtime import open_engine
from edgemtl.runtime.streaming.session import StreamingSession
from edgemtl.spaces.families.vit import VitSpec, vit_plan
from edgemtl.targets import find_target

COUNTS = (4, 8, 16, 32)
LAYOUTS = {"every_second_block": 2, "every_block": 1}
QUICK = {"width": 96, "head_width": 32, "heads": [3], "depth": [2], "hidden": [1536], "decoder": {"width": [16]}}
QUICK_SIZE = (64, 64)


def vit(count: int, every: int, quick: bool) -> MultiTaskNet:
    """The net of one task with `count` experts, of which every token goes to as many as in `_vit_small`."""
    torch.manual_seed(0)
    experts = {**EXPERTS, "count": count, "kept": [count], "every": every}
    spec = VitSpec.model_validate({**(QUICK if quick else LARGEST), "experts": experts})
    return MultiTaskNet(vit_plan(spec, tasks(1), {}, QUICK_SIZE if quick else SIZE), tasks(1)).eval()


def measured(net: MultiTaskNet) -> dict[str, int | None]:
    """Bytes that the net's engine holds and reads for one image."""
    with tempfile.TemporaryDirectory() as scratch:
        find_target("streaming").build(net, {}, None, Path(scratch))
        with closing(open_engine(Path(scratch))) as session:
            assert isinstance(session, StreamingSession)
            session.run(np.random.default_rng(0).standard_normal((1, 3, *net.input_size), np.float32), ["task0"])
        opening = measure_opening(Path(scratch))
    known = opening.run_peak_bytes is not None and opening.baseline_bytes is not None
    return {
        "peak_weight_bytes": session.peak_weight_bytes,
        "read_bytes_per_image": session.read_bytes,
        "weight_bytes": session.weight_bytes,
        "resident_growth_bytes": opening.run_peak_bytes - opening.baseline_bytes if known else None,
    }


def run(options: argparse.Namespace) -> Outcome:
    """The largest peak over the smallest, and all weights of the most experts over what is held of them."""
    rows, raw = [], {}
    for name, every in LAYOUTS.items():
        found = {}
        for count in COUNTS:
            found[count] = measured(vit(count, every, options.quick))
            say(f"{name}, {count} experts: {found[count]}")
        peaks = [each["peak_weight_bytes"] for each in found.values()]
        most = found[COUNTS[-1]]
        held = most["weight_bytes"] / most["peak_weight_bytes"]
        rows.append(Row(f"{name}_largest_peak_over_smallest", max(peaks) / min(peaks), "x", 1.05))
        rows.append(Row(f"{name}_all_weights_over_peak", held, "x", lower_is_better=False))
        raw[name] = {str(count): each for count, each in found.items()}
    return Outcome(rows, raw)


if __name__ == "__main__":
    main(run, __doc__)
