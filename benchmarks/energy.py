"""Energy of loops against one reading of the counters around all of them, where this machine has counters.

Loops of work and of idling take turns and each is read at its own ends, as profiles do; together they must take what
the counters say of the whole time, less what passes between loops.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from _common import Outcome, Row, main, say

from edgemtl.profiling.energy import draw_energy
from edgemtl.profiling.rails import Rail, find_rails


def run(options: argparse.Namespace) -> Outcome:
    """About 30 s of loops; no row where nothing tells energy, or power alone."""
    rails, reason = find_rails()
    counters = [rail for rail in rails if rail.is_counter]
    if not counters:
        say(f"not measured: {reason or 'this machine tells power, no energy'}")
        return Outcome([], {"reason": reason or "no counter"})
    visit_s, rounds = (0.5, 2) if options.quick else (1.25, 6)
    matrix = np.random.default_rng(0).standard_normal((512, 512), dtype=np.float32)
    before, start = [read(rail) for rail in counters], time.monotonic()
    drawn = draw_energy({"work": lambda: matrix @ matrix}, visit_s=visit_s, rounds=rounds)
    seconds, after = time.monotonic() - start, [read(rail) for rail in counters]
    whole = sum(spent(rail, first, last) for rail, first, last in zip(counters, before, after, strict=True))
    visits = [visit for own in drawn["visits"].values() for visit in own]
    loops, looped_s = sum(visit[1] for visit in visits), sum(visit[0] for visit in visits)
    apart = 100 * abs(loops / looped_s * seconds / whole - 1)
    row = Row("energy of loops apart from one reading", apart, "%", 10, 3)
    return Outcome([row], {"drawn": drawn, "whole_j": whole, "seconds": seconds})


def read(rail: Rail) -> float:
    value = rail.read()
    assert value is not None, f"{rail.name} cannot be read"
    return value


def spent(rail: Rail, before: float, after: float) -> float:
    """Joules between two readings of a counter that may have started anew once."""
    return rail.unit * (after - before + (rail.wraps_at if after < before else 0))


if __name__ == "__main__":
    main(run, __doc__)
