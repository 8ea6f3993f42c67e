"""Ctrl-C and SIGTERM: treated alike, deferred where needed, and no child process left behind."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["deferred", "end_with_parent", "interrupted", "terminable"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_PR_SET_PDEATHSIG = 1


_came: list[int] = []


def _interrupt(number: int, frame: FrameType | None) -> None:
    _came.append(number)
    raise KeyboardInterrupt


def interrupted() -> bool:
    """Whether a Ctrl-C or SIGTERM came inside `terminable`: a library may have turned it into another error."""
    return bool(_came)


@contextmanager
def terminable() -> Iterator[None]:
    """Make SIGTERM act like Ctrl-C while the block runs; outside the main thread nothing changes."""
    _came.clear()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handled = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, _interrupt) for number in handled}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[Callable[[], None]]:
    """Defer a Ctrl-C or SIGTERM until the block ends or the yielded function is called.

    A second one is not deferred. Signal handlers run in the main thread only, so elsewhere nothing is deferred.
    """
    held: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        held.append(number)
        if handlers[signal.Signals(number)] is _interrupt:
            _came.append(number)
        if len(held) > 1:
            raise KeyboardInterrupt

    def release() -> None:
        if held:
            raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield release
        return
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    caught = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in caught:
        signal.signal(number, hold)
    try:
        yield release
    finally:
        for number, handler in caught.items():
            signal.signal(number, handler)
    release()


def end_with_parent(parent: int) -> None:
    """Have the kernel end this child process when its parent, the process with that id, ends for any reason (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended already
            os.kill(os.getpid(), signal.SIGKILL)
