"""Latencies over ssh against latencies here: one engine on this machine, measured by both measurers in turns.

The board is this machine, reached through an OpenSSH server on loopback. Each turn opens nothing: both engines stay
open, and whole comparisons follow each other here, there, there, here.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from _common import Outcome, Row, main, say

sys.path.append(str(Path(__file__).parents[1] / "tests" / "shelf"))
from loopback import SSHD, LoopbackBoard
from two_heads import engine_in

from edgemtl.devices import HOST, load_device
from edgemtl.profiling import Measurer, TimedCall, close_boards, find_measurer
from edgemtl.runtime import Session

TARGET, THREADS = "onnxruntime", 1


def run(options: argparse.Namespace) -> Outcome:
    """The ratio of medians for each set of tasks."""
    if SSHD is None:
        say("no sshd on this machine: apt-get install openssh-server")
        return Outcome([], {"reason": "no sshd"})
    with tempfile.TemporaryDirectory() as folder:
        board = LoopbackBoard(Path(folder) / "board").start()
        os.environ["PATH"] = f"{board.folder / 'bin'}:{os.environ['PATH']}"
        try:
            return compared(engine_in(Path(folder) / "engine"), board, 3 if options.quick else 150)
        finally:
            close_boards()
            board.stop()


def compared(engine: Path, board: LoopbackBoard, turns: int) -> Outcome:
    devices = {"here": load_device(HOST), "ssh": load_device(board.url())}
    measurers = {where: find_measurer(device, TARGET) for where, device in devices.items()}
    samples: dict[str, dict[str, list[float]]] = {where: {} for where in measurers}
    medians: dict[str, dict[str, list[float]]] = {where: {} for where in measurers}
    with ExitStack() as stack:
        sessions = {where: each.open(engine, THREADS) for where, each in measurers.items()}
        for session in sessions.values():
            stack.callback(session.close)
        for turn in range(turns):
            for where in (*sessions, *reversed(sessions)):
                for mode, drawn in draw(measurers[where], sessions[where]).items():
                    samples[where].setdefault(mode, []).extend(drawn)
                    medians[where].setdefault(mode, []).append(median(drawn))
            say(f"turn {turn + 1} of {turns}")
    ratios = {mode: median(samples["ssh"][mode]) / median(samples["here"][mode]) for mode in samples["here"]}
    rows = [Row(f"{mode}: ssh apart from here", 100 * abs(ratio - 1), "%", 3, 1) for mode, ratio in ratios.items()]
    return Outcome(rows, {"ratios": ratios, "medians_of_visits_ms": medians})


def draw(measurer: Measurer, session: Session) -> dict[str, tuple[float, ...]]:
    image = np.random.default_rng(0).standard_normal((1, 3, 32, 32), dtype=np.float32)
    modes = {"all tasks": session.tasks, **{f"only {task}": (task,) for task in session.tasks}}
    calls = {name: TimedCall(session, image, tasks) for name, tasks in modes.items()}
    drawn = measurer.compare(calls, 5, burst=20, settle=2, warmup=20)
    return {name: each.samples_ms for name, each in drawn.items()}


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


if __name__ == "__main__":
    main(run, __doc__)
