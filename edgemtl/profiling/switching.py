"""Run-time cost of a bundle's levels, measured in a fresh process: time to switch to one, memory to keep it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np

from edgemtl.errors import EdgeMTLError
from edgemtl.profiling.fresh import resident_bytes
from edgemtl.profiling.opening import run_in_subprocess
from edgemtl.runtime import Engine

__all__ = ["LevelCost", "measure_levels"]

RUNS, SWITCHES = 3, 11


@dataclass(frozen=True)
class LevelCost:
    """A level of an open bundle: `Engine.set_level` at its first use and later, and what it adds to the process.

    `again_ms` is the median of `SWITCHES` switches: each takes microseconds, and one of them any other program's time.
    `resident_bytes` is by how much the resident set grew until the level was open and had run all tasks `RUNS` times: a
    runtime may plan its memory in the first run and take it in the second. That of the first level, which is opened
    with the bundle and so has no `first_ms`, holds the runtime's libraries too. None where the system does not tell.
    """

    first_ms: float | None
    again_ms: float
    resident_bytes: int | None


def measure_levels(bundle: Path, target: str | None = None, threads: int = 0) -> list[LevelCost]:
    """Open a bundle and its levels one after another in a process of its own, all of them kept; in their order.

    Raises `UserError` where that process fails.
    """
    return [LevelCost(**fields) for fields in json.loads(run_in_subprocess(levels_main, bundle, target, threads))]


def levels_main() -> None:
    """Main function of the subprocess; it exits with 1 and the reason on stderr's last line if it fails."""
    try:
        request = json.load(sys.stdin)
        costs = _opened(Path(request["path"]), request["target"], request["threads"])
    except EdgeMTLError as error:
        sys.exit(str(error))
    sys.stdout.write(json.dumps([asdict(each) for each in costs]) + "\n")


def _opened(bundle: Path, target: str | None, threads: int) -> list[LevelCost]:
    sizes = [resident_bytes("VmRSS")]
    with Engine(bundle, target, threads, open_levels=sys.maxsize) as engine:
        count = len(engine.manifest.levels)
        image = np.zeros((1, 3, engine.manifest.input.height, engine.manifest.input.width), np.float32)
        first: list[float | None] = []
        for number in range(count):
            spent_ms = _switch_ms(engine, number)
            first.append(spent_ms if number else None)
            for _ in range(RUNS):
                engine.run(image)
            sizes.append(resident_bytes("VmRSS"))
        rounds = [[_switch_ms(engine, number) for number in range(count)] for _ in range(SWITCHES)]
        again = [median(times) for times in zip(*rounds, strict=True)]
    grown = [None if a is None or b is None else max(b - a, 0) for a, b in pairwise(sizes)]
    return [LevelCost(*each) for each in zip(first, again, grown, strict=True)]


def _switch_ms(engine: Engine, number: int) -> float:
    level = engine.manifest.levels[number]
    start = perf_counter()
    engine.set_level(budget=f"{level.cost.flops}FLOPs", prefer=level.preference)
    return 1000 * (perf_counter() - start)
