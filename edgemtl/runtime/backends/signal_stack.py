"""The stack that a thread's signal handlers run on, held against libraries that replace it."""

from __future__ import annotations

import ctypes
import sys
from contextlib import contextmanager
from typing import Iterator

__all__ = ["signal_stack_kept"]


class _Stack(ctypes.Structure):
    """`stack_t` of Linux."""

    _fields_ = (("address", ctypes.c_void_p), ("flags", ctypes.c_int), ("size", ctypes.c_size_t))


@contextmanager
def signal_stack_kept() -> Iterator[None]:
    """Put this thread's alternate signal stack back as it was; outside Linux nothing is done.

    OpenVINO gives a thread that compiles an engine a stack of the engine's, and the one before back when that is freed.
    Engines that are not freed last one first so leave the stack of one that is gone, and Python's handlers run on it:
    the next Ctrl-C was a segmentation fault.
    """
    if sys.platform != "linux":
        yield
        return
    libc, before = ctypes.CDLL(None), _Stack()
    libc.sigaltstack(None, ctypes.byref(before))
    try:
        yield
    finally:
        libc.sigaltstack(ctypes.byref(before), None)
