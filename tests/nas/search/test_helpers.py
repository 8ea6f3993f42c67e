"""Several processes of one search on one machine."""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from refusals import refused
from small_world import Ask

from edgemtl.nas.evaluation import Turns
from edgemtl.nas.search import search
from edgemtl.progress import Progress


@pytest.mark.parametrize("killed", [False, True])
def test_two_workers_answer_as_one_does_also_where_one_is_killed(ask: Ask, tmp_path: Path, killed: bool) -> None:
    """Nothing here is timed, so that nothing may differ; one bar tells of all."""
    changes = {"target": "tensorrt-rtx", "evaluations": 6}
    alone = search(ask(tmp_path / "alone", **changes))
    events: list[Progress] = []

    def report(event: Progress) -> None:
        events.append(event)
        if killed and event.stage == "search" and event.done == 2:
            for helper in multiprocessing.active_children():
                os.kill(helper.pid or 0, signal.SIGKILL)
                helper.join()

    result = search(ask(tmp_path / "run", workers=2, **changes), report)
    assert (result.best, result.front, result.evaluations) == (alone.best, alone.front, alone.evaluations)
    assert [event.text for event in events if not event.stage] == (
        ["a worker ended (signal 9): 1 left, which do its design again"] if killed else []
    )
    done = [event.done for event in events if event.stage == "search"]
    assert done == sorted(done) and done[-1] == 6
    assert not multiprocessing.active_children()


def test_a_number_of_workers_that_cannot_be_is_one_line(ask: Ask, tmp_path: Path) -> None:
    assert "0 workers given: give 1 to 64 processes" in refused(lambda: search(ask(tmp_path / "run", workers=0)))


def test_who_is_alone_waits_for_those_inside_and_keeps_newcomers_out(tmp_path: Path) -> None:
    order: list[str] = []

    def alone() -> None:
        with Turns(tmp_path).alone():
            order.append("alone")
            time.sleep(0.2)
            order.append("leaves")

    def newcomer() -> None:
        with Turns(tmp_path).among_others():
            order.append("newcomer")

    with Turns(tmp_path).among_others(), Turns(tmp_path).among_others():
        first = threading.Thread(target=alone)
        first.start()
        wait_until_locked(tmp_path / "gate")  # it waits at the room, the gate its own
        second = threading.Thread(target=newcomer)
        second.start()
        time.sleep(0.1)
        order.append("inside")
    for thread in (first, second):
        thread.join(20)
    assert order == ["inside", "alone", "leaves", "newcomer"]


def test_who_waits_to_be_alone_goes_between_two_parts_of_another_s_work(tmp_path: Path) -> None:
    order: list[str] = []

    def alone() -> None:
        with Turns(tmp_path).alone():
            order.append("alone")

    turns = Turns(tmp_path)
    waiting = threading.Thread(target=alone)
    with turns.among_others():
        for part in turns.in_parts(("first", "second", "third")):
            if part == "first":
                waiting.start()
                wait_until_locked(tmp_path / "gate")
            order.append(part)
    waiting.join(20)
    assert order == ["first", "alone", "second", "third"]


def wait_until_locked(file: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with file.open("ab") as opened, suppress(BlockingIOError):
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            time.sleep(0.01)
            continue
        return
    raise AssertionError(f"nobody has {file}")


def test_without_others_nothing_waits() -> None:
    with Turns().alone(), Turns().among_others(), Turns().alone():
        assert [*Turns().in_parts("ab")] == ["a", "b"]
