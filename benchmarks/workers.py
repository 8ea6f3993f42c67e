"""Two workers against one: wall time to equal trials of one search, and what is lost where one is killed.

Each search runs in its own process and its own folder; one after the other, A B B A. Engines are timed, one at a time
on the machine, as a search with --workers does. The killed one is a helper, in the middle of its work.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from _common import Outcome, Row, main, say
from _runs import ROOT

from edgemtl.nas.evaluation import finished, open_storage, open_study
from edgemtl.results import read_result

EVALUATIONS, QUICK_EVALUATIONS = 36, 12
POLL_SECONDS = 0.1


def positions(out: Path) -> int:
    """How many designs are evaluated in a run's study, this far."""
    journal = out / "study.journal"
    return len(finished(open_study("search", open_storage(journal)))) if journal.is_file() else 0


def searching(
    out: Path, workers: int, evaluations: int, meanwhile: Callable[[int], None] = lambda pid: None
) -> tuple[float, int]:
    """Seconds from the first design begun to the last evaluated, and how many there are."""
    shutil.rmtree(out, ignore_errors=True)
    words = ["--budget", "2GFLOPs", "--evaluations", str(evaluations), "--finetune", "0"]
    command = [sys.executable, "-m", "edgemtl", "search", *words, "--workers", str(workers), "--out", str(out)]
    say("$ " + " ".join(command[2:]))
    process = subprocess.Popen(command, stdout=sys.stderr, cwd=ROOT)
    threading.Thread(target=meanwhile, args=(process.pid,), daemon=True).start()
    begun: float | None = None
    ended = 0.0
    while process.poll() is None:
        if begun is None and (out / "config.json").is_file():
            begun = time.perf_counter()
        if begun is not None and not ended and positions(out) >= evaluations:
            ended = time.perf_counter()
        time.sleep(POLL_SECONDS)
    if process.returncode or begun is None:
        raise SystemExit(f"the search ended with status {process.returncode}")
    return (ended or time.perf_counter()) - begun, positions(out)


def kill_a_helper(out: Path, pid: int) -> None:
    """Kill a child process of a search once three designs are evaluated."""
    while positions(out) < 3:
        time.sleep(POLL_SECONDS)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    spawned = [child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    os.kill(int(spawned[0]), signal.SIGKILL)
    say(f"killed worker {spawned[0]}")


def run(options: argparse.Namespace) -> Outcome:
    """Time both, then kill one of two."""
    count = QUICK_EVALUATIONS if options.quick else EVALUATIONS
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory(prefix="edgemtl-workers-") as scratch:
        out = Path(scratch) / "run"
        for workers in (1, 2) if options.quick else (1, 2, 2, 1):
            seconds[workers].append(searching(out, workers, count)[0])
        _, left = searching(out, 2, count, lambda pid: kill_a_helper(out, pid))
        whole = read_result(out).evaluations
    ratio = sum(seconds[1]) / sum(seconds[2])
    rows = [
        Row("two_workers_against_one", ratio, "x", 1.5, lower_is_better=False),
        Row("trials_lost_by_a_kill", count - left, "", 0),
    ]
    return Outcome(rows, {"evaluations": count, "seconds": seconds, "distinct_designs_after_the_kill": whole})


if __name__ == "__main__":
    main(run, __doc__)
