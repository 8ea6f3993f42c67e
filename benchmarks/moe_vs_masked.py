"""The mixture-of-experts ViT-S as it is exported against computing every expert for every token; interleaved."""

from __future__ import annotations

import argparse

from _common import Outcome, Row, main
from _vit_small import ENGINES, drawn_in_turns, vit_small, with_dispatch

from edgemtl.export._tokens import Dispatch
from edgemtl.profiling import ratios
from edgemtl.targets import find_target

OPENED = 3
FORMS = {"masked": Dispatch("masked"), "buckets": Dispatch("buckets", 1.25)}


def run(options: argparse.Namespace) -> Outcome:
    """A ratio for every runtime and precision; the time of fixed buckets is kept beside it."""
    net = vit_small()
    rows, raw = [], {}
    for name, (runtime, engine) in ENGINES.items():
        targets = {form: with_dispatch(runtime, dispatch) for form, dispatch in FORMS.items()}
        sides = {form: (net, target) for form, target in {**targets, "exported": find_target(runtime)}.items()}
        samples = drawn_in_turns(sides, engine, 1 if options.quick else OPENED)
        found = ratios(samples, "exported")["masked"]
        rows.append(Row(name, found.value, "x", 1.5, 2.2, lower_is_better=False))
        medians = {form: each.median_ms for form, each in samples.items()}
        raw[name] = {"median_ms": medians, "interval": [found.low, found.high]}
    return Outcome(rows, raw)


if __name__ == "__main__":
    main(run, __doc__)
