"""Ctrl-C and SIGTERM do the same, between two steps, and no child outlives a killed parent."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from edgemtl.signals import deferred, end_with_parent, terminable

FORK = multiprocessing.get_context("fork")


def check_in_child(check: Callable[[], None]) -> None:
    """Run a check in the main thread of a child with Python's own handlers: a signal may not reach a test runner."""

    def run() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        check()

    child = FORK.Process(target=run)
    child.start()
    child.join(60)
    assert child.exitcode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_is_held_back_until_the_block_lets_it_go(number: signal.Signals) -> None:
    def check() -> None:
        steps = []
        with pytest.raises(KeyboardInterrupt), terminable(), deferred() as now:
            steps.append("first")
            now()
            signal.raise_signal(number)
            steps.append("whole")
            now()
            steps.append("not reached")
        assert steps == ["first", "whole"]

    check_in_child(check)


def test_it_comes_at_the_end_of_a_block_at_the_latest() -> None:
    def check() -> None:
        reached = False
        with pytest.raises(KeyboardInterrupt), deferred():
            signal.raise_signal(signal.SIGINT)
            reached = True
        assert reached

    check_in_child(check)


def test_a_second_one_comes_at_once() -> None:
    def check() -> None:
        with pytest.raises(KeyboardInterrupt), deferred():
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
            pytest.fail("the second was held back")

    check_in_child(check)


def test_handlers_are_what_they_were() -> None:
    def check() -> None:
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        with terminable(), deferred():
            pass
        with pytest.raises(ValueError, match="its own"), deferred():
            raise ValueError("its own")
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before

    check_in_child(check)


def test_other_threads_may_use_it() -> None:
    done = []

    def work() -> None:
        with terminable(), deferred() as now:
            now()
        done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


def bear(ends: Connection) -> None:
    parent = os.getpid()

    def live() -> None:
        end_with_parent(parent)
        ends.send(os.getpid())
        time.sleep(600)

    FORK.Process(target=live).start()
    time.sleep(600)


def lives(process: int) -> bool:
    """Whether a process has not ended; it may be gone between any two looks."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"
    return False


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="Linux only")
def test_a_child_ends_with_a_parent_that_was_killed() -> None:
    ours, theirs = FORK.Pipe()
    parent = FORK.Process(target=bear, args=(theirs,))
    parent.start()
    child = ours.recv()
    parent.kill()
    parent.join()
    deadline = time.monotonic() + 30
    while lives(child):
        assert time.monotonic() < deadline
        time.sleep(0.01)
