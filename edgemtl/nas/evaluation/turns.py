"""Turns of processes that share one machine: what is timed is timed alone, all else is done beside others."""

from __future__ import annotations

import fcntl
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

__all__ = ["Turns"]

T = TypeVar("T")


@dataclass
class Turns:
    """Locks in a folder that the processes share; without a `folder` nothing waits.

    Who wants to be alone keeps the gate while those inside leave, so that no newcomer goes before it. The kernel gives
    the locks of a process back when that ends, however it ends.
    """

    folder: Path | None = None
    _inside: ExitStack | None = field(default=None, init=False, repr=False)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process is inside, and keep the others out."""
        with self._locked("gate", fcntl.LOCK_EX), self._locked("room", fcntl.LOCK_EX):
            yield

    @contextmanager
    def among_others(self) -> Iterator[None]:
        """Go inside, once nobody is alone there or waits to be."""
        with ExitStack() as self._inside:
            self._enter(self._inside)
            try:
                yield
            finally:
                self._inside = None

    def in_parts(self, parts: Iterable[T]) -> Iterator[T]:
        """The parts of a work: before each of them, who waits to be alone goes first, if the work is done inside.

        So nobody waits for more than a part of another's work.
        """
        for part in parts:
            if self._inside is not None:
                self._inside.close()
                self._enter(self._inside)
            yield part

    def _enter(self, inside: ExitStack) -> None:
        with self._locked("gate", fcntl.LOCK_EX):
            inside.enter_context(self._locked("room", fcntl.LOCK_SH))

    @contextmanager
    def _locked(self, name: str, kind: int) -> Iterator[None]:
        if self.folder is None:
            yield
            return
        with (self.folder / name).open("ab") as file:
            fcntl.flock(file, kind)
            yield
