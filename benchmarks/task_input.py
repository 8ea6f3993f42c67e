"""An `If` on the task: time of one task where an engine has 2 to 8 of them, and whether TensorRT-RTX builds it.

Every task has a decoder of its own behind one trunk, and the call wants the first; engines of 2, 4 and 8 tasks run in
turns. An engine in which the wanted task costs more the more others there are is no choice of tasks at all.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from _common import Outcome, Row, main
from _runs import drawn, opened

from edgemtl.errors import UnsupportedError
from edgemtl.models import MultiTaskNet
from edgemtl.models.quantization import calibrate
from edgemtl.profiling import ratios
from edgemtl.targets import find_target
from edgemtl.tasks import Task, make_task
from edgemtl.testing import images, small_net

COUNTS = (2, 4, 8)
OPENED = 3
SIZE, QUICK_SIZE = (192, 256), (96, 128)


def tasks(count: int) -> tuple[Task, ...]:
    """Maps of depth under other names: decoders of one size."""
    return tuple(make_task(f"depth{number}", "depth") for number in range(count))


def net_of(count: int, size: tuple[int, int]) -> MultiTaskNet:
    """A net of so many tasks; the trunk and the first decoder are the same in each."""
    return small_net("fused", tasks=tasks(count), size=size)


def is_built(net: MultiTaskNet) -> bool:
    """Whether TensorRT-RTX builds the net with its tasks inside `If`, with every second block in INT8."""
    eight = {name: "int8" for number, name in enumerate(net.blocks) if number % 2}
    with tempfile.TemporaryDirectory() as folder:
        try:
            ranges = calibrate(net, images(2, net.input_size))
            find_target("tensorrt-rtx").build(net, {"engine": "fp16", **eight}, ranges, Path(folder))
        except UnsupportedError:
            return False
    return True


def run(options: argparse.Namespace) -> Outcome:
    """Ratios to the engine of two tasks; the farthest from 1 counts."""
    size = QUICK_SIZE if options.quick else SIZE
    nets = {count: net_of(count, size) for count in COUNTS}
    image = images(1, size).numpy()

    def opens(stack: ExitStack) -> dict[str, Callable[[], object]]:
        calls: dict[str, Callable[[], object]] = {}
        for count, net in nets.items():
            session = opened(stack, net, find_target("onnxruntime"), "fp32", [["depth0"]])
            calls[str(count)] = partial(session.run, image, ["depth0"])
        return calls

    samples = drawn(opens, 1 if options.quick else OPENED)
    compared = ratios(samples, str(COUNTS[0]))
    shares = {count: compared[str(count)].value for count in COUNTS[1:]}
    worst = max(abs(value - 1) for value in shares.values())
    built = [is_built(net) for net in nets.values()]
    rows = [
        Row("one task of 2 to 8: time apart from that of 2", 100 * worst, "%", 5, 1),
        Row("engines that TensorRT-RTX builds", 100 * sum(built) / len(built), "%", 100, lower_is_better=False),
    ]
    raw = {"median_ms": {name: each.median_ms for name, each in samples.items()}, "ratio_to_2": shares}
    return Outcome(rows, raw)


if __name__ == "__main__":
    main(run, __doc__)
