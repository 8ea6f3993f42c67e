"""How fast scenes are rendered: images a second at 128x128 in one process with one thread, all labels included."""

from __future__ import annotations

import argparse
import statistics
import time

from _common import Outcome, Row, main

from edgemtl.data.scenes import render

SIDE = 128


def run(options: argparse.Namespace) -> Outcome:
    """Render scenes one after another; the first warms up."""
    seconds = []
    for seed in range(1 + (40 if options.quick else 400)):
        start = time.perf_counter()
        render(5_000_000 + seed, SIDE, SIDE)
        seconds.append(time.perf_counter() - start)
    mean = statistics.fmean(seconds[1:])
    return Outcome([Row("images_per_second", 1 / mean, "images/s", 40, None, False)], {"seconds": seconds[1:]})


if __name__ == "__main__":
    main(run, __doc__)
