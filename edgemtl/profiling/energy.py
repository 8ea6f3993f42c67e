"""Energy of calls, integrated over loops of them, with idle beside: counters read at both ends, never sampled power.

A loop makes calls for a second or more, so that a counter that moves every millisecond is read to a thousandth; loops
of all calls and of idling come in turns (A B B A), as latencies are drawn. Where a board tells power only, a watcher of
its own reads that all the time and its readings are integrated; one that dies voids the figure, and nothing stands in
its place. The agent measures on boards with it (Python 3.8).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic_ns, sleep
from typing import Any, Callable

from edgemtl.profiling.rails import Rail, find_rails
from edgemtl.profiling.turns import Call
from edgemtl.progress import Progress, Report, silent

__all__ = ["IDLE", "draw_energy", "watch_main"]

IDLE = ""
"""The name of the loop that calls nothing."""
VISIT_S, ROUNDS = 1.0, 2
PERIOD_S = 0.01
FEWEST_READINGS = 10
"""In one loop; with fewer the watcher did not watch."""
TOO_FEW = "what watched the power read it"
"""How the reason of such a void begins."""


class EnergyVoid(Exception):
    """Readings that cannot be trusted, and why."""


def draw_energy(
    calls: Mapping[str, Call],
    *,
    visit_s: float = VISIT_S,
    rounds: int = ROUNDS,
    root: Path = Path("/"),
    report: Report = silent,
) -> dict[str, Any]:
    """Energy of loops of each call and of `IDLE`, in turns, as JSON values.

    `visits` are lists of (seconds, joules, calls), `rails` what was covered, `rate_hz` the readings a second that were
    achieved (None of counters). Where there is nothing to read, or a watcher died, only the `reason` why not.
    """
    rails, reason = find_rails(root)
    if not rails:
        return {"reason": reason}
    loops: dict[str, Call] = {IDLE: lambda: sleep(visit_s), **calls}
    visits: dict[str, list[list[float]]] = {name: [] for name in loops}
    spans: list[tuple[str, int, int, int]] = []
    try:
        with _Counters(rails) if rails[0].is_counter else _Watcher(rails) as meter:
            for number in range(rounds):
                for name in (*loops, *reversed(tuple(loops))):
                    spans.append((name, *_loop(loops[name], visit_s, meter.stamp)))
                report(Progress("energy", number + 1, rounds))
            meter.finish()
        for name, start, end, count in spans:
            visits[name].append([(end - start) / 1e9, meter.joules(start, end), count])
    except EnergyVoid as error:
        return {"reason": str(error)}
    return {"visits": visits, "rails": [rail.name for rail in rails], "rate_hz": meter.rate_hz}


def _loop(call: Call, seconds: float, stamp: Callable[[], int]) -> tuple[int, int, int]:
    """Call until the time is over: start and end in ns, and how often."""
    count, start = 0, stamp()
    while monotonic_ns() - start < 1e9 * seconds:
        call()
        count += 1
    return start, stamp(), count


class _Counters:
    """Counters, read at each end of a loop."""

    rate_hz: float | None = None

    def __init__(self, rails: Sequence[Rail]) -> None:
        self._rails = rails
        self._readings: dict[int, list[float]] = {}

    def __enter__(self) -> _Counters:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def stamp(self) -> int:
        """The moment in ns, with what the counters hold then."""
        values = [rail.read() for rail in self._rails]
        now = monotonic_ns()
        if any(value is None for value in values):
            raise EnergyVoid("a counter could not be read any more")
        self._readings[now] = [float(value or 0) for value in values]
        return now

    def finish(self) -> None:
        """Nothing is left to read."""

    def joules(self, start: int, end: int) -> float:
        """Energy between two stamps."""
        spent = 0.0
        for rail, before, after in zip(self._rails, self._readings[start], self._readings[end]):
            if after < before and not rail.wraps_at:
                raise EnergyVoid(f"the counter of {rail.name} fell, and nothing says where it starts anew")
            spent += rail.unit * (after - before + (rail.wraps_at if after < before else 0))
        return spent


class _Watcher:
    """Power, read by a process of its own; energy is the integral of its readings."""

    def __init__(self, rails: Sequence[Rail]) -> None:
        self._rails = rails
        self._table: list[tuple[int, float]] = []

    def __enter__(self) -> _Watcher:
        root = str(Path(__file__).parents[2])
        code = (
            f"import sys; sys.path.insert(0, {root!r}); from edgemtl.profiling.energy import watch_main; watch_main()"
        )
        files = [f"{rail.unit}:{':'.join(map(str, rail.files))}" for rail in self._rails]
        self._folder = tempfile.TemporaryDirectory()
        self._output = Path(self._folder.name) / "readings"
        with self._output.open("ab") as output:
            command = [sys.executable, "-c", code, str(os.getpid()), str(PERIOD_S), *files]
            self._process = subprocess.Popen(command, stdout=output, stderr=subprocess.DEVNULL)
        while self._output.stat().st_size == 0 and self._process.poll() is None:
            sleep(PERIOD_S)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._folder.cleanup()

    stamp = staticmethod(monotonic_ns)

    def finish(self) -> None:
        """Take the readings, the last of which comes after the last loop."""
        sleep(2 * PERIOD_S)
        if self._process.poll() is not None:
            raise EnergyVoid(f"what watched the power ended by itself (status {self._process.returncode})")
        lines = self._output.read_text().splitlines()[:-1]  # the last may be half of one
        self._table = [(int(line.split()[0]), float(line.split()[1])) for line in lines]
        if len(lines) < FEWEST_READINGS:
            raise EnergyVoid(f"{TOO_FEW} {len(lines)} times only")

    @property
    def rate_hz(self) -> float | None:
        """Readings a second that were achieved."""
        return reading_rate(self._table)

    def joules(self, start: int, end: int) -> float:
        """Energy between two moments."""
        return integrate(self._table, start, end)


def reading_rate(readings: Sequence[tuple[int, float]]) -> float:
    """Readings a second, of two and more: (ns, watts)."""
    return 1e9 * (len(readings) - 1) / (readings[-1][0] - readings[0][0])


def integrate(readings: Sequence[tuple[int, float]], start: int, end: int) -> float:
    """Joules between two moments in ns, by trapezoids of the readings (ns, watts) between them.

    Up to the first and after the last of these, that one holds. Raises `EnergyVoid` where they are too few.
    """
    inside = [(time, watts) for time, watts in readings if start < time < end]
    if len(inside) < FEWEST_READINGS:
        raise EnergyVoid(f"{TOO_FEW} {len(inside)} times in a loop: {FEWEST_READINGS} are needed")
    points = [(start, inside[0][1]), *inside, (end, inside[-1][1])]
    return sum((b[1] + a[1]) / 2 * (b[0] - a[0]) / 1e9 for a, b in zip(points, points[1:]))


def watch_main() -> None:
    """Main function of the watcher: a line for each reading, until it is ended or its parent does.

    Its arguments are the parent's process, the period, and the unit and the files of each rail.
    """
    parent, period_s, rails = int(sys.argv[1]), float(sys.argv[2]), []
    for number, text in enumerate(sys.argv[3:]):
        unit, *files = text.split(":")
        rails.append(Rail(str(number), tuple(map(Path, files)), float(unit), False))
    while os.getppid() == parent:
        values = [rail.read() for rail in rails]
        if any(value is None for value in values):
            sys.exit("a rail cannot be read any more")
        sys.stdout.write(f"{monotonic_ns()} {sum(value or 0.0 for value in values):.6f}\n")
        sys.stdout.flush()
        sleep(period_s)
