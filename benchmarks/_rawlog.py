"""Read the colour and depth picture of an RGB-D camera out of an MRPT rawlog (CObservation3DRangeScan, version 9).

Nothing is executed and every length is checked against what the file holds, so a damaged file is one `UserError`.

Channel order: the bytes are blue, green, red. The frame that Debian's mrpt-common ships is labelled OPENNI2, and that
driver of MRPT's packs a pixel as r<<16 | g<<8 | b into OpenCV's memory, which is written as it lies. Looked at, that is
right: the shelf is of beech wood; in the other order it is sky-blue. (One byte off, it is pink or violet.)
"""

from __future__ import annotations

import gzip
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import UserError

CONTENT_LIMIT_BYTES = 64 * 2**20
LEAST_SIDE, MOST_PIXELS = 8, 4096 * 4096
END_OF_OBJECT = 0x88


@dataclass(frozen=True)
class RangeFrame:
    """`rgb` uint8 (H, W, 3); `depth` float32 (H, W) in metres, 0 where nothing was measured; focal lengths and
    principal point in pixels of the depth picture."""

    rgb: NDArray[np.uint8]
    depth: NDArray[np.float32]
    focal: tuple[float, float]
    centre: tuple[float, float]


class _Cursor:
    """Takes values from bytes, one after the other, and never beyond their end."""

    def __init__(self, data: bytes, path: Path) -> None:
        self.data, self.path, self.at = data, path, 0

    def fail(self, reason: str) -> UserError:
        """The one line for a file that is not what it should be."""
        return UserError(
            f"rawlog {self.path}: {reason} at byte {self.at}: it is damaged, or another kind; fetch it again"
        )

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        if not 0 <= count <= len(self.data) - self.at:
            raise self.fail(f"{count} bytes wanted, {len(self.data) - self.at} left")
        self.at += count
        return self.data[self.at - count : self.at]

    def values(self, code: str) -> tuple[Any, ...]:
        """The next little-endian values of a `struct` code."""
        return struct.unpack("<" + code, self.take(struct.calcsize("<" + code)))

    def array(self, code: str, *shape: int) -> NDArray[Any]:
        """The next array of a numpy type and shape."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(code).itemsize
        return np.frombuffer(self.take(size), code).reshape(shape)

    def begin(self, name: str, version: int) -> None:
        """The head of an object of a class and version: the length of its name, the name, the version."""
        wanted = bytes([0x80 | len(name)]) + name.encode() + bytes([version])
        if self.take(len(wanted)) != wanted:
            raise self.fail(f"no {name} of version {version} found")

    def end(self) -> None:
        """The mark behind an object."""
        if self.take(1)[0] != END_OF_OBJECT:
            raise self.fail("an object does not end")

    def flag(self, what: str, wanted: bool) -> None:
        """A boolean that must have a value for this reader to go on."""
        if bool(self.take(1)[0]) != wanted:
            raise self.fail(f"{what} is {'missing' if wanted else 'stored, which is not read here'}")


def read_rawlog(path: Path) -> RangeFrame:
    """The first observation of a rawlog; raises `UserError` where it is missing, damaged or of another kind."""
    cursor = _Cursor(_content(path), path)
    cursor.begin("mrpt::obs::CObservation3DRangeScan", 9)
    cursor.values("f")  # the sensor's reach
    _skip_pose(cursor)
    if cursor.take(1)[0]:
        (points,) = cursor.values("I")
        cursor.take(points * (3 * 4 + 2 * 2))  # x, y, z as float32, then the pixel's column and row as uint16
    cursor.flag("the depth picture", True)
    unit, *shape = cursor.values("fII")
    depth = cursor.array("<u2", *_plausible(cursor, *shape)).astype(np.float32) * np.float32(unit)
    cursor.flag("the colour picture", True)
    rgb = _picture(cursor)
    cursor.flag("a confidence picture", False)
    fx, fy, cx, cy = _camera(cursor)
    if rgb.shape[:2] != depth.shape:
        raise cursor.fail(f"colour is {rgb.shape[:2]} and depth {depth.shape}")
    return RangeFrame(rgb, depth, (fx, fy), (cx, cy))


def _content(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            data = file.read(CONTENT_LIMIT_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"rawlog {path} cannot be read ({error}): it is missing, truncated or no gzip file") from error
    if len(data) > CONTENT_LIMIT_BYTES:
        raise UserError(f"rawlog {path} holds more than {CONTENT_LIMIT_BYTES} bytes: one frame is wanted")
    return data


def _plausible(cursor: _Cursor, height: int, width: int) -> tuple[int, int]:
    if min(height, width) < LEAST_SIDE or height * width > MOST_PIXELS:
        raise cursor.fail(f"a picture of {height} x {width} pixels")
    return height, width


def _skip_pose(cursor: _Cursor) -> None:
    cursor.begin("mrpt::poses::CPose3D", 3)
    cursor.values("12d")
    cursor.end()


def _picture(cursor: _Cursor) -> NDArray[np.uint8]:
    """A colour picture stored as it is: a negative size says so, a positive one that it is compressed."""
    cursor.begin("mrpt::img::CImage", 9)
    cursor.flag("the picture's own file", False)
    cursor.flag("its colour", True)
    width, height = cursor.values("ii")
    picture = cursor.array("u1", *_plausible(cursor, -height, -width), 3)
    cursor.end()
    return np.ascontiguousarray(picture[..., ::-1])


def _camera(cursor: _Cursor) -> tuple[float, float, float, float]:
    """Focal lengths and principal point; the lens's distortion is below one pixel in these files and left out."""
    cursor.begin("mrpt::img::TCamera", 4)
    fx, fy, cx, cy = cursor.values("13d2I")[9:13]
    cursor.end()
    if not all(np.isfinite(value) and value > 0 for value in (fx, fy, cx, cy)):
        raise cursor.fail("a camera without a focal length")
    return fx, fy, cx, cy
