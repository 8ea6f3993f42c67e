"""The mixture-of-experts ViT-S as it is exported against computing every expert for every token; interleaved.

An expert takes at most 1.25 times an even share of an image's tokens; what a token may not reach is masked too. The
same net without that bound, against all of its experts masked, stands beside it.
"""

from __future__ import annotations

import argparse

from _common import Outcome, Row, main
from _vit_small import ENGINES, drawn_in_turns, vit_small, with_dispatch

from edgemtl.profiling import ratios
from edgemtl.targets import find_target
from edgemtl.targets.onnx.dispatch import DispatchPolicy

OPENED = 3


def run(options: argparse.Namespace) -> Outcome:
    """A ratio for every runtime and precision."""
    nets = {"bounded": vit_small(bounded=True), "unbounded": vit_small()}
    rows, raw = [], {}
    for name, (runtime, engine) in ENGINES.items():
        targets = {"exported": find_target(runtime), "masked": with_dispatch(runtime, DispatchPolicy("masked"))}
        sides = {f"{kind}_{form}": (net, target) for kind, net in nets.items() for form, target in targets.items()}
        samples = drawn_in_turns(sides, engine, 1 if options.quick else OPENED)
        found = {kind: ratios(samples, f"{kind}_exported")[f"{kind}_masked"] for kind in nets}
        rows.append(Row(name, found["bounded"].value, "x", 1.5, 2.2, lower_is_better=False))
        rows.append(Row(f"{name}_unbounded", found["unbounded"].value, "x", lower_is_better=False))
        medians = {side: each.median_ms for side, each in samples.items()}
        raw[name] = {"median_ms": medians, "interval": {kind: [r.low, r.high] for kind, r in found.items()}}
    return Outcome(rows, raw)


if __name__ == "__main__":
    main(run, __doc__)
