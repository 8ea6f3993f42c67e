"""Switching tasks on one engine of the mixture-of-experts ViT-S: another task every call, or the same; interleaved.

Four tasks are ready, and every call sees another frame. Both sides run every task equally often, so that what tasks
differ by weighs on both alike.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from contextlib import ExitStack

from _common import Outcome, Row, main
from _runs import drawn, opened
from _vit_small import over_frames, vit_small

from edgemtl.profiling import Samples, ratios
from edgemtl.targets import find_target

TASKS = 4
OPENED = 3


def run(options: argparse.Namespace) -> Outcome:
    """A ratio of medians for each runtime."""
    net = vit_small(TASKS)
    names = [task.name for task in net.tasks]
    rows, raw = [], {}
    for runtime in ("onnxruntime", "openvino"):

        def opens(stack: ExitStack, runtime: str = runtime) -> dict[str, Callable[[], object]]:
            session = opened(stack, net, find_target(runtime), "fp32", [[name] for name in names])
            staying = {f"staying/{name}": over_frames(session, [name]) for name in names}
            return {**staying, "switching": over_frames(session, *([name] for name in names))}

        samples = drawn(opens, 1 if options.quick else OPENED)
        still = tuple(value for name in names for value in samples[f"staying/{name}"].samples_ms)
        both = {"staying": Samples(still, 0, samples["switching"].visit), "switching": samples["switching"]}
        found = ratios(both, "staying")["switching"]
        rows.append(Row(runtime, found.value, "x", 1.02, 1.005))
        medians = {name: each.median_ms for name, each in samples.items()}
        raw[runtime] = {"median_ms": medians, "interval": [found.low, found.high]}
    return Outcome(rows, raw)


if __name__ == "__main__":
    main(run, __doc__)
