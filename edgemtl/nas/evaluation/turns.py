"""Turns of processes that share one machine: what is timed is timed alone, all else is done beside others."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Turns"]


@dataclass(frozen=True)
class Turns:
    """Locks in a folder that the processes share; without a `folder` nothing waits.

    Who wants to be alone keeps the gate while those inside leave, so that no newcomer goes before it. The kernel gives
    the locks of a process back when that ends, however it ends.
    """

    folder: Path | None = None

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Wait until no other process is inside, and keep the others out."""
        with self._locked("gate", fcntl.LOCK_EX), self._locked("room", fcntl.LOCK_EX):
            yield

    @contextmanager
    def among_others(self) -> Iterator[None]:
        """Go inside, once nobody is alone there or waits to be."""
        with ExitStack() as inside:
            with self._locked("gate", fcntl.LOCK_EX):
                inside.enter_context(self._locked("room", fcntl.LOCK_SH))
            yield

    @contextmanager
    def _locked(self, name: str, kind: int) -> Iterator[None]:
        if self.folder is None:
            yield
            return
        with (self.folder / name).open("ab") as file:
            fcntl.flock(file, kind)
            yield
