"""A folder between relays, which come and go with connections, and the worker, which stays: requests in, replies out.

A request keeps its number when a connection is cut and it is sent again, so that it is carried out once. Files appear
whole, by renaming. Locks of the kernel say who is alive: they end with their processes in any case.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path
from time import monotonic

from edgemtl.profiling.frames import Frame, read_frame, write_frame

__all__ = ["Mailbox"]


class Mailbox:
    """The agent's folder on the board. The worker outlives the last connection by `lease_s`, then removes it."""

    def __init__(self, folder: Path, lease_s: float) -> None:
        self.folder, self._lease_s = folder, lease_s
        self.store, self.engines = folder / "store", folder / "engines"
        self.scratch = folder / "scratch"  # for what runtimes leave in temporary folders and caches
        self._requests, self._replies = folder / "requests", folder / "replies"
        for part in (self.store, self.engines, self.scratch, self._requests, self._replies):
            part.mkdir(mode=0o700, exist_ok=True)
        self._connected = os.open(folder / "connected", os.O_RDWR | os.O_CREAT, 0o600)
        self._last_seen = monotonic()

    def attach(self) -> None:
        """Say, until this process ends, that a connection is there."""
        fcntl.flock(self._connected, fcntl.LOCK_SH)

    def is_abandoned(self) -> bool:
        """Whether no connection was there for the whole lease, as far as the worker looked."""
        try:
            fcntl.flock(self._connected, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._last_seen = monotonic()
            return False
        fcntl.flock(self._connected, fcntl.LOCK_UN)
        return monotonic() - self._last_seen > self._lease_s

    def worker_lock(self) -> int | None:
        """The worker's lock as an open file, where no worker holds it."""
        handle = os.open(self.folder / "worker", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            return None
        return handle

    def post(self, number: int, request: Frame) -> None:
        """Put a request in, unless it is there or answered; answers to earlier ones are dropped."""
        for reply in self._replies.iterdir():
            if reply.name.isdigit() and int(reply.name) < number:
                reply.unlink()
        if not (self._replies / str(number)).exists() and not (self._requests / str(number)).exists():
            self._put(self._requests / str(number), request)

    def next_request(self) -> tuple[int, Frame] | None:
        """The oldest request and its number."""
        numbers = [int(path.name) for path in self._requests.iterdir() if path.name.isdigit()]
        if not numbers:
            return None
        with (self._requests / str(min(numbers))).open("rb") as file:
            return min(numbers), read_frame(file)

    def answer(self, number: int, reply: Frame) -> None:
        """Answer a request, which is gone then."""
        self._put(self._replies / str(number), reply)
        self.withdraw(number)
        if (self.folder / "progress").exists():
            (self.folder / "progress").unlink()

    def give_up(self, number: int) -> None:
        """Say that nobody waits for the answer to a request any more."""
        (self.folder / f"given-up-{number}").touch()

    def is_given_up(self, number: int) -> bool:
        """Whether nobody waits for an answer."""
        return (self.folder / f"given-up-{number}").exists()

    def withdraw(self, number: int) -> None:
        """Take a request out."""
        if (self._requests / str(number)).exists():
            (self._requests / str(number)).unlink()

    def reply(self, number: int) -> Frame | None:
        """The answer to a request, once it is there."""
        path = self._replies / str(number)
        if not path.exists():
            return None
        with path.open("rb") as file:
            return read_frame(file)

    def show_progress(self, progress: Frame) -> None:
        """Put a note on the request that is being carried out, in place of the last one."""
        self._put(self.folder / "progress", progress)

    def progress(self) -> Frame | None:
        """The latest note."""
        try:
            with (self.folder / "progress").open("rb") as file:
                return read_frame(file)
        except OSError:
            return None

    def log_end(self) -> str:
        """The last line that the worker wrote, as a runtime that crashes does."""
        try:
            lines = (self.folder / "log").read_bytes()[-4096:].decode("utf-8", "replace").strip().splitlines()
        except OSError:
            lines = []
        return lines[-1][:300] if lines else ""

    def remove(self) -> None:
        """Remove the folder with everything in it."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @staticmethod
    def _put(path: Path, frame: Frame) -> None:
        part = path.with_name(f".{path.name}.{os.getpid()}")
        with part.open("wb") as file:
            write_frame(file, frame)
        part.replace(path)
