"""The agent that travels to boards: its size, how long it takes to start, and the Pythons that start it."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _common import Outcome, Row, main

sys.path.append(str(Path(__file__).parents[1] / "tests" / "shelf"))
from loopback import python_of

from edgemtl.profiling.frames import ConnectionCut, read_frame
from edgemtl.profiling.remote.pack import agent_zip, bootstrap_source

VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")
LEASE_S = "1"


def run(options: argparse.Namespace) -> Outcome:
    """Start it as a board does, without ssh: its source on standard input, its greeting on standard output."""
    pythons = {version: python for version in VERSIONS if (python := python_of(version))}
    seconds = [started(sys.executable) for _ in range(3 if options.quick else 20)]
    by_version = {version: started(python) for version, python in pythons.items()}
    failing = [version for version, spent in by_version.items() if spent is None]
    good = [spent for spent in seconds if spent is not None]
    rows = [
        Row("size", len(agent_zip()) / 1000, "kB", 300),
        Row("start, median", statistics.median(good) if good else float("inf"), "s", 1),
        Row("Pythons 3.8 to 3.13 that do not start it", float(len(failing)), "versions", 0),
        Row("Pythons 3.8 to 3.13 on this machine", float(len(pythons)), "versions", None, 6, lower_is_better=False),
    ]
    return Outcome(rows, {"start_s": seconds, "start_s_by_version": by_version})


def started(python: str) -> float | None:
    """Seconds from the start of that Python to the agent's greeting; None where none comes."""
    bootstrap, agent = bootstrap_source(), agent_zip()
    with tempfile.TemporaryDirectory() as folder:
        command = [python, "-I", "-c", bootstrap, "edgemtl-benchmark", str(len(agent)), LEASE_S]
        start = time.perf_counter()
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={"TMPDIR": folder})
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(agent)
            process.stdin.flush()
            read_frame(process.stdout)
            return time.perf_counter() - start
        except (ConnectionCut, OSError):
            return None
        finally:
            process.stdin.close()
            process.wait()
            for _ in range(100):
                if not any(Path(folder).iterdir()):  # the worker removes the agent when its lease ends
                    break
                time.sleep(0.1)


if __name__ == "__main__":
    main(run, __doc__)
