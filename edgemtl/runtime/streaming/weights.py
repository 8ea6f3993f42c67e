"""A file of weights, read piece by piece into one buffer: the piece in use, and the next one being read ahead.

Bytes are copied by `pread`, not mapped. Pages of a mapped file that were touched stay in the process's resident set
until the kernel takes them back, so that a count of what is held would mean nothing there. What was read may stay in
the kernel's page cache, which counts for no process and gives way to everything else.
"""

from __future__ import annotations

import os
import weakref
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import UserError
from edgemtl.files.disk import open_regular, reading

__all__ = ["ALIGNMENT", "Piece", "WeightStream"]

ALIGNMENT = 64
"""Bytes: a cache line, and the widest vector register."""

Bytes = NDArray[np.uint8]


@dataclass(frozen=True)
class Piece:
    """A range of the file that is read at once; offset and size are multiples of `ALIGNMENT` bytes."""

    offset: int
    size_bytes: int


@dataclass(frozen=True)
class _Slot:
    """A piece in the buffer, complete when `ready` is done."""

    piece: Piece
    memory: Bytes
    at_front: bool
    ready: Future[None]


class WeightStream:
    """Double buffering: one background thread reads the next piece while the caller computes with the current one.

    Pieces lie at the buffer's front and at its back in turns, so `buffer_bytes` need only hold any two that follow each
    other. `peak_bytes` counts the most that was held at once since opening (the piece in use and the one being read),
    `read_bytes` what was read since `begin`. Not thread-safe. Raises `UserError` where the file cannot be read. The
    file is closed by `close`, or with the last reference to the stream.
    """

    def __init__(self, path: Path, buffer_bytes: int) -> None:
        self.peak_bytes = self.read_bytes = 0
        self._path = path
        self._buffer = _aligned(buffer_bytes)
        with open_regular(path, "weights") as file:
            self._file = os.dup(file.fileno())
        self._reader = ThreadPoolExecutor(1, "edgemtl-weights")
        self._release = weakref.finalize(self, _release, self._reader, self._file)
        self._held: _Slot | None = None
        self._coming: _Slot | None = None

    @property
    def buffer_bytes(self) -> int:
        """Bytes that are allocated for weights, once and for all."""
        return len(self._buffer)

    def begin(self) -> None:
        """Start a run: what an earlier one held or was still reading is forgotten, and `read_bytes` is 0."""
        if self._coming is not None:
            wait([self._coming.ready])
        self._held = self._coming = None
        self.read_bytes = 0

    def prefetch(self, piece: Piece) -> None:
        """Start reading the piece that `take` will ask for next; nothing to do where it is the one in use."""
        held = self._held
        if held is not None and held.piece == piece:
            return
        together = piece.size_bytes + (held.piece.size_bytes if held else 0)
        assert self._coming is None and together <= len(self._buffer)
        at_front = held is None or not held.at_front
        start = 0 if at_front else len(self._buffer) - piece.size_bytes
        memory = self._buffer[start : start + piece.size_bytes]
        self._coming = _Slot(piece, memory, at_front, self._reader.submit(self._read, piece, memory))
        self.read_bytes += piece.size_bytes
        self.peak_bytes = max(self.peak_bytes, together)

    def take(self, piece: Piece) -> Bytes:
        """The bytes of a piece, waiting until all are read; they hold until the next `take`."""
        if self._held is None or self._held.piece != piece:
            if self._coming is None:
                self.prefetch(piece)
            coming = self._coming
            assert coming is not None and coming.piece == piece
            coming.ready.result()
            self._held, self._coming = coming, None
        return self._held.memory

    def close(self) -> None:
        """Stop reading and free the buffer; a second time does nothing."""
        self._reader.shutdown()
        self._release()
        self._held = self._coming = None
        self._buffer = _aligned(0)

    def _read(self, piece: Piece, memory: Bytes) -> None:
        rest, offset = memory.data, piece.offset
        while len(rest):
            with reading(f"weights {self._path}"):
                count = os.preadv(self._file, [rest], offset)
            if not count:
                raise UserError(f"weights {self._path} end at byte {offset}: the file was cut short; export again")
            rest, offset = rest[count:], offset + count


def _release(reader: ThreadPoolExecutor, file: int) -> None:
    """End the thread and close the file, once nothing is being read: a read under way holds a reference."""
    reader.shutdown(wait=False)  # where it ends with that read, the thread would be waiting for itself
    os.close(file)


def _aligned(size: int) -> Bytes:
    """Uninitialised bytes whose first one is aligned."""
    raw = np.empty(size + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + size]
