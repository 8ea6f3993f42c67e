"""An `If` on the task: time of one task where an engine has 2 to 8 of them, and whether TensorRT-RTX builds it.

Every task has a decoder of its own behind one trunk, and the call wants the first. An engine in which the wanted task
costs more the more others there are is no choice of tasks at all.

Two engines of one file differ in speed for as long as they live, by more than what is looked for. So the life of an
engine is the unit: engines of 2, 4 and 8 tasks, and a second one of 2 as a control, are opened together many times, in
another order each time, and run in turns; each time gives a ratio of medians, and these have a median with its exact
95 % interval. What is reported is the end of the interval that is farthest from 1: it holds where all of it does.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import numpy as np
from _common import Outcome, Row, main, say
from _runs import BURST, ROUNDS, built

from edgemtl.errors import UnsupportedError
from edgemtl.models import MultiTaskNet
from edgemtl.models.quantization import calibrate
from edgemtl.profiling import compare, percentile_interval
from edgemtl.runtime import open_engine
from edgemtl.targets import find_target
from edgemtl.tasks import Task, make_task
from edgemtl.testing import images, small_net

COUNTS = (2, 4, 8)
CONTROL = "2 again"
TIMES, QUICK_TIMES = 240, 12
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


def in_order(names: Sequence[str], time: int) -> list[str]:
    """The names in an order of that time's own: each comes first and last equally often, beside others each time."""
    turned = [*names[time % len(names) :], *names[: time % len(names)]]
    return turned[::-1] if time // len(names) % 2 else turned


def medians_ms(folders: Mapping[str, Path], size: tuple[int, int], times: int) -> dict[str, list[float]]:
    """The median latency of one task, of each engine, of each time that all are opened."""
    image = images(1, size).numpy()
    medians: dict[str, list[float]] = {name: [] for name in folders}
    for time in range(times):
        with ExitStack() as stack:
            calls = {}
            for name in in_order([*folders], time):
                session = stack.enter_context(closing(open_engine(folders[name], modes=[["depth0"]])))
                calls[name] = partial(session.run, image, ["depth0"])
            for name, samples in compare(calls, ROUNDS, burst=BURST).items():
                medians[name].append(samples.median_ms)
        say(f"{time + 1} of {times}")
    return medians


def shares(medians: Mapping[str, Sequence[float]], reference: str) -> dict[str, tuple[float, float, float]]:
    """Each engine's median ratio to the reference over all times, and its exact 95 % interval (low, high)."""
    intervals = {}
    for name in medians:
        if name != reference:
            ratios = np.asarray(medians[name]) / np.asarray(medians[reference])
            interval = percentile_interval(ratios.tolist(), 0.5)
            assert interval is not None, "ten times at least bound a median"
            intervals[name] = (float(np.median(ratios)), *interval)
    return intervals


def farthest(ratios: Mapping[str, Sequence[float]]) -> float:
    """The farthest from 1 of all that is given, in %."""
    return 100 * max(abs(each - 1) for values in ratios.values() for each in values)


def run(options: argparse.Namespace) -> Outcome:
    """Ratios to the engine of two tasks; the farthest end of an interval counts."""
    size = QUICK_SIZE if options.quick else SIZE
    nets = {count: net_of(count, size) for count in COUNTS}
    with ExitStack() as stack:
        target = find_target("onnxruntime")
        folders = {str(count): stack.enter_context(built(net, target, "fp32")) for count, net in nets.items()}
        folders[CONTROL] = folders[str(COUNTS[0])]
        medians = medians_ms(folders, size, QUICK_TIMES if options.quick else TIMES)
    compared = shares(medians, str(COUNTS[0]))
    control = {CONTROL: compared.pop(CONTROL)}
    engines = [is_built(net) for net in nets.values()]
    rows = [
        Row("one task of 2 to 8: time apart from that of 2, at most", farthest(compared), "%", 5, 1),
        Row("the same as a median", farthest({name: each[:1] for name, each in compared.items()}), "%"),
        Row("an engine of 2 apart from itself, at most", farthest(control), "%"),
        Row("engines that TensorRT-RTX builds", 100 * sum(engines) / len(engines), "%", 100, lower_is_better=False),
    ]
    return Outcome(rows, {"median_ms": medians, "ratio_to_2": {**compared, **control}})


if __name__ == "__main__":
    main(run, __doc__)
