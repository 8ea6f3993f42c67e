"""Frames: messages between this machine and the agent on a board, JSON values with bytes beside them.

A frame is a mark, the sizes of both parts, a JSON object and the bytes: of arrays, whose names, types and shapes the
object has under `arrays`, or of a file. What comes before the first mark, as a login shell may print, is skipped.
Nothing in a frame is executed. The agent reads and writes them on boards (Python 3.8).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from edgemtl.files.json import parse_json

__all__ = ["ConnectionCut", "Frame", "read_frame", "write_frame"]

MARK = b"\x00edgemtl\x01"
SIZES = struct.Struct("<IQ")
LARGEST_HEADER_BYTES = 64 * 2**20
LARGEST_PAYLOAD_BYTES = 2**32
LARGEST_GREETING_BYTES = 64 * 2**10


class ConnectionCut(Exception):
    """The other side is gone, or what it writes is no frame."""


@dataclass(frozen=True)
class Frame:
    """A message: the fields of its JSON object, and bytes."""

    fields: Mapping[str, Any]
    payload: bytes = field(default=b"", repr=False)


def write_frame(stream: IO[bytes], frame: Frame) -> None:
    """Write a frame and flush; raises `ConnectionCut` where the other side is gone."""
    header = json.dumps(dict(frame.fields), allow_nan=False).encode()
    try:
        stream.write(MARK + SIZES.pack(len(header), len(frame.payload)) + header)
        stream.write(frame.payload)
        stream.flush()
    except (OSError, ValueError) as error:
        raise ConnectionCut(str(error)) from error


def read_frame(stream: IO[bytes]) -> Frame:
    """The next frame; raises `ConnectionCut` at the end of the stream and for what is no frame."""
    _skip_to_mark(stream)
    header_bytes, payload_bytes = SIZES.unpack(_read(stream, SIZES.size))
    if header_bytes > LARGEST_HEADER_BYTES or payload_bytes > LARGEST_PAYLOAD_BYTES:
        raise ConnectionCut("a frame is too large")
    try:
        fields = parse_json(_read(stream, header_bytes))
    except ValueError as error:
        raise ConnectionCut(f"a frame is damaged: {error}") from error
    if not isinstance(fields, dict):
        raise ConnectionCut("a frame is damaged: it is no object")
    return Frame(fields, _read(stream, payload_bytes))


def _skip_to_mark(stream: IO[bytes]) -> None:
    seen = b""
    for _ in range(LARGEST_GREETING_BYTES):
        seen = (seen + _read(stream, 1))[-len(MARK) :]
        if seen == MARK:
            return
    raise ConnectionCut("no frame came")


def _read(stream: IO[bytes], size_bytes: int) -> bytes:
    """Exactly that many bytes."""
    chunks, missing = [], size_bytes
    while missing:
        try:
            chunk = stream.read(min(missing, 2**20))
        except (OSError, ValueError) as error:
            raise ConnectionCut(str(error)) from error
        if not chunk:
            raise ConnectionCut("the connection ended")
        chunks.append(chunk)
        missing -= len(chunk)
    return b"".join(chunks)
