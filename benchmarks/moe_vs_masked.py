"""The mixture-of-experts ViT-S as it is exported against computing every expert for every token; interleaved."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial

import numpy as np
from _common import Outcome, Row, main
from _runs import drawn
from _vit_small import ENGINES, SIZE, opened, vit_small, with_dispatch

from edgemtl.export._tokens import Dispatch
from edgemtl.profiling import ratios
from edgemtl.targets import find_target

OPENED = 3
FORMS = {"masked": Dispatch("masked"), "buckets": Dispatch("buckets", 1.25)}


def run(options: argparse.Namespace) -> Outcome:
    """A ratio for every runtime and precision; the time of fixed buckets is kept beside it."""
    net = vit_small()
    image = np.random.default_rng(0).standard_normal((1, 3, *SIZE), np.float32)
    rows, raw = [], {}
    for name, (runtime, engine) in ENGINES.items():

        def opens(stack: ExitStack, runtime: str = runtime, engine: str = engine) -> dict[str, Callable[[], object]]:
            targets = {form: with_dispatch(runtime, dispatch) for form, dispatch in FORMS.items()}
            targets["exported"] = find_target(runtime)
            sessions = {form: opened(stack, net, target, engine, [["task0"]]) for form, target in targets.items()}
            return {form: partial(session.run, image, ["task0"]) for form, session in sessions.items()}

        samples = drawn(opens, 1 if options.quick else OPENED)
        found = ratios(samples, "exported")["masked"]
        rows.append(Row(name, found.value, "x", 1.5, 2.2, lower_is_better=False))
        medians = {form: each.median_ms for form, each in samples.items()}
        raw[name] = {"median_ms": medians, "interval": [found.low, found.high]}
    return Outcome(rows, raw)


if __name__ == "__main__":
    main(run, __doc__)
