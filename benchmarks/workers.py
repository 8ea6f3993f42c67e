"""Two workers against one: wall time to equal trials of one search, and what is lost where one is killed.

Each search runs in its own process and its own folder, to its last evaluation; one after the other, A B B A. Engines
are timed, one at a time on the machine, as a search with --workers does. The killed one is a helper, in the middle of
its work.

Every worker scores on one thread (`--threads`), and has a core of its own: that is what a second worker brings. Against
one worker that scores on all cores (`one_on_all_cores_against_two`) little can be won where two are all. A design of
the default space took one thread 7.5 s of CPU time, on a machine that others kept busy three times over, so that only
the proportions count: statistics 1.7, ranges 0.8, scores 3.5 (metrics 1.2 of them), the engine's file and the rest 0.4,
all of which workers do at once, and 1.2 for opening and timing, which are done alone. So of two workers with a core
each a design takes 6.3 / 2 + 1.2 s, of one that shares its work between both cores about as much, and of one with a
core 7.5 s: 1.7 x is the ceiling of two with a core each. The seconds in which the second worker starts are counted in.

A search that has ended is kept until all have: called again after it was stopped, the benchmark goes on with the next.
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from _common import Outcome, Row, main, say
from _runs import ROOT, RUNS, supernet_hash

from edgemtl.files.disk import read_json, write_json
from edgemtl.nas.evaluation import finished, open_storage, open_study

EVALUATIONS, QUICK_EVALUATIONS = 18, 12
POLL_SECONDS = 0.2
ONE, TWO, ALL, KILLED = "one", "two", "one_on_all_cores", "two_of_which_one_is_killed"


@dataclass(frozen=True)
class Searching:
    """A search: its workers, the threads that these share out, and what happens meanwhile to its process."""

    workers: int
    threads: int
    evaluations: int
    meanwhile: Callable[[Path, int], None] = lambda out, pid: None


def evaluated_in(out: Path) -> Callable[[], int]:
    """A count of the designs that are evaluated in a run's study, this far; each call reads what is new."""
    studies: list[optuna.Study] = []

    def count() -> int:
        journal = out / "study.journal"
        if not studies and journal.is_file():
            studies.append(open_study("search", open_storage(journal)))
        return len(finished(studies[0])) if studies else 0

    return count


def timed(search: Searching, scratch: Path) -> dict[str, Any]:
    """Seconds from the first design begun to the last evaluated, and how many there are; the search ends there."""
    out = scratch / "run"
    shutil.rmtree(out, ignore_errors=True)
    words = ["--budget", "2GFLOPs", "--evaluations", str(search.evaluations), "--finetune", "0"]
    command = [sys.executable, "-m", "edgemtl", "search", *words, "--workers", str(search.workers), "--out", str(out)]
    say(f"$ OMP_NUM_THREADS={search.threads} {' '.join(command[2:])}")
    env = {**os.environ, "OMP_NUM_THREADS": str(search.threads), "TMPDIR": str(scratch)}
    process = subprocess.Popen(command, stdout=sys.stderr, cwd=ROOT, env=env)
    threading.Thread(target=search.meanwhile, args=(out, process.pid), daemon=True).start()
    begun, count, done = 0.0, evaluated_in(out), 0
    while process.poll() is None and done < search.evaluations:
        if not begun and (out / "config.json").is_file():
            begun = time.perf_counter()
        done = count()
        time.sleep(POLL_SECONDS)
    seconds = time.perf_counter() - begun
    if process.poll() or not begun:
        raise SystemExit(f"the search ended with status {process.returncode}")
    process.kill()  # what follows, its answer, is not timed; its helpers end with it
    process.wait()
    return {"seconds": seconds, "evaluated": done}


def kill_a_helper(out: Path, pid: int) -> None:
    """Kill a child process of a search once three designs are evaluated."""
    count = evaluated_in(out)
    while count() < 3:
        time.sleep(POLL_SECONDS)
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    spawned = [child for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    os.kill(int(spawned[0]), signal.SIGKILL)
    say(f"killed worker {spawned[0]}")


def all_timed(searches: dict[str, Searching], order: list[str], file: Path) -> dict[str, list[dict[str, Any]]]:
    """Every search of an order, by name. Those that `file` has of the same searches are not done again."""
    words = {name: [each.workers, each.threads, each.evaluations] for name, each in searches.items()}
    key = {"supernet": supernet_hash("cnn"), "order": order, "searches": words}
    content = read_json(file, "searches") if file.is_file() else {}
    ended = content["ended"] if content.get("key") == key else []
    if ended:
        say(f"{len(ended)} of {len(order)} searches are in {file}: delete it to begin anew")
    for name in order[len(ended) :]:
        with tempfile.TemporaryDirectory(prefix="edgemtl-workers-") as scratch:
            ended.append(timed(searches[name], Path(scratch)))
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"key": key, "ended": ended})
        say(f"{name}: {ended[-1]['evaluated']} designs in {ended[-1]['seconds']:.1f} s")
    named = list(zip(order, ended, strict=True))
    return {name: [each for its, each in named if its == name] for name in dict.fromkeys(order)}


def run(options: argparse.Namespace) -> Outcome:
    """Time them, then kill one of two."""
    count, threads = QUICK_EVALUATIONS if options.quick else EVALUATIONS, options.threads
    searches = {
        ONE: Searching(1, threads, count),
        TWO: Searching(2, 2 * threads, count),
        ALL: Searching(1, len(os.sched_getaffinity(0)), count),
        KILLED: Searching(2, 2 * threads, count, kill_a_helper),
    }
    order = [ONE, TWO, KILLED] if options.quick else [ONE, TWO, TWO, ONE, ALL, KILLED]
    file = RUNS / "workers.json"
    ended = all_timed(searches, order, file)
    seconds = {name: [each["seconds"] for each in its] for name, its in ended.items()}
    mean = {name: sum(values) / len(values) for name, values in seconds.items()}
    rows = [Row("two_workers_against_one", mean[ONE] / mean[TWO], "x", 1.5, lower_is_better=False)]
    if ALL in mean:
        rows.append(Row("one_on_all_cores_against_two", mean[ALL] / mean[TWO], "x", lower_is_better=False))
    rows.append(Row("trials_lost_by_a_kill", count - ended[KILLED][0]["evaluated"], "", 0))
    file.unlink()
    return Outcome(rows, {"evaluations": count, "threads_of_a_worker": threads, "seconds": seconds})


def add(parser: argparse.ArgumentParser) -> None:
    """The threads of a worker."""
    parser.add_argument("--threads", type=int, default=1, help="threads that each worker scores on (default: 1)")


if __name__ == "__main__":
    main(run, __doc__, add)
