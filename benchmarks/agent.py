"""The agent that travels to boards: its size, how long it takes to start, and the Pythons that start it."""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _common import Outcome, Row, main

from edgemtl.profiling.frames import ConnectionCut, read_frame
from edgemtl.profiling.remote.pack import agent_zip, bootstrap_source

VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")
LEASE_S = "1"


def run(options: argparse.Namespace) -> Outcome:
    """Start it as a board does, without ssh: its source on standard input, its greeting on standard output."""
    pythons = {version: python for version in VERSIONS if (python := other_python(version))}
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


def other_python(version: str) -> str | None:
    """A Python of that version that starts, as `python3.8` or in a folder of pyenv's."""
    folders = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for command in (shutil.which(f"python{version}"), *map(str, folders)):
        if command and subprocess.run([command, "-c", ""], capture_output=True, check=False).returncode == 0:
            return command
    return None


if __name__ == "__main__":
    main(run, __doc__)
