"""Reading image and label files of strangers: every way they can be broken is one `UserError`, nothing is executed."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from edgemtl.errors import UserError

__all__ = ["SUFFIXES", "Header", "naming", "read_array", "read_header", "read_image", "resize_image", "turned"]

Array = NDArray[Any]
SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
_ORIENTATION = 0x0112
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
_MODES = {
    "1": (1, "b1"),
    "L": (1, "u1"),
    "P": (1, "u1"),
    "I;16": (1, "u2"),
    "I;16B": (1, "u2"),
    "I": (1, "i4"),
    "F": (1, "f4"),
    "LA": (2, "u1"),
    "PA": (2, "u1"),
    "RGB": (3, "u1"),
    "RGBA": (4, "u1"),
}


_NUMBERS = {"b": "truth values", "u": "whole numbers", "i": "signed whole numbers", "f": "floats"}


@dataclass(frozen=True)
class Header:
    """What a file says of its array before it is read: its size, channels (1 for a plain map) and numpy type."""

    height: int
    width: int
    channels: int
    dtype: str

    def __str__(self) -> str:
        number = _NUMBERS.get(self.dtype[0])
        told = f"{8 * int(self.dtype[1:])}-bit {number}" if number and self.dtype[1:].isdigit() else self.dtype
        return f"{self.height} x {self.width} with {self.channels} channel{'s'[: self.channels - 1]} of {told}"


@contextmanager
def naming(file: str) -> Iterator[None]:
    """Every `UserError` raised inside begins with the file's name."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The picture; every way in which it can be broken becomes a `UserError`."""
    try:
        with Image.open(path) as picture:
            yield picture
    except FileNotFoundError as error:
        raise UserError("the file is missing") from error
    except _BROKEN as error:
        raise UserError(
            f"cannot be read ({_reason(error)}): it is damaged or no image, copy or write it again"
        ) from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no image format that Pillow knows"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _npy(path: Path) -> Array:
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError("the file is missing") from error
    except (OSError, ValueError, EOFError, SyntaxError) as error:
        raise UserError(
            f"cannot be read ({_reason(error)}): a .npy file of numbers is needed, write it again"
        ) from error
    if not isinstance(array, np.ndarray) or array.ndim not in (2, 3) or 0 in array.shape:
        raise UserError(f"has the shape {getattr(array, 'shape', None)}: (H, W) or (H, W, channels) is needed")
    return array


def read_header(path: Path) -> Header:
    """Size, channels and type of a label file (.npy or an image) without reading it; raises `UserError`."""
    if path.suffix == ".npy":
        array = _npy(path)
        return Header(array.shape[0], array.shape[1], array.shape[2] if array.ndim == 3 else 1, array.dtype.str[1:])
    with _opened(path) as picture:
        channels, dtype = _MODES.get(picture.mode, (len(picture.getbands()), picture.mode))
        return Header(picture.height, picture.width, channels, dtype)


def read_array(path: Path) -> Array:
    """The label file's numbers, (H, W) or (H, W, channels); a palette image gives its indices. Raises `UserError`."""
    if path.suffix == ".npy":
        array = np.array(_npy(path))
        return array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    with _opened(path) as picture:
        return np.array(picture)


def turned(path: Path) -> bool:
    """Whether a photo carries the note (EXIF) that it must be turned to be looked at."""
    with _opened(path) as picture:
        return _is_turned(picture)


def _is_turned(picture: Image.Image) -> bool:
    # Only the formats of cameras: from a PNG, the note is had by decoding all of it.
    return picture.format in ("JPEG", "MPO", "TIFF", "WEBP") and picture.getexif().get(_ORIENTATION, 1) != 1


def read_image(path: Path) -> Image.Image:
    """An 8-bit RGB picture, turned upright as its EXIF says; grey becomes three equal channels. Raises `UserError`."""
    with _opened(path) as picture:
        if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
            raise UserError(f"is an image of mode {picture.mode}: 8 bits a channel are needed, convert it")
        colours = picture.convert("RGB")
        return ImageOps.exif_transpose(colours) if _is_turned(picture) else colours


def resize_image(picture: Image.Image, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture as uint8 (height, width, 3), or (height, width) where grey.

    Areas are averaged where it shrinks, otherwise it is interpolated.
    """
    height, width = size
    shrinks = height <= picture.height and width <= picture.width
    way = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    return np.array(picture.resize((width, height), way))
