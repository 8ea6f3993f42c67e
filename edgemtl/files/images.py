"""Pictures as network input, the same everywhere: formats, refusals, and resizing.

Training, scoring, running and reports read pictures here and nowhere else. Pictures may be untrusted: only regular
files of a bounded size, only a few formats (none that starts another program), and no more pixels than memory holds.
Errors do not name the file; the caller does (`edgemtl.errors.naming`).
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from edgemtl.errors import UserError
from edgemtl.files.disk import open_regular

__all__ = [
    "ENDINGS",
    "IMAGE_MEAN",
    "IMAGE_STD",
    "bits_per_channel",
    "check_picture",
    "check_pixels",
    "ending_refused",
    "is_turned",
    "normalize",
    "open_picture",
    "picture_pixels",
    "read_picture",
    "resize_picture",
    "to_rgb",
]

IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)
ENDINGS = (".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
PICTURE_LIMIT_BYTES = 2**28
PICTURE_LIMIT_PIXELS = 2**27
"""A photo of 12,000 x 9,000 pixels is read; it takes 0.4 GB while it is."""

_FORMATS = ("BMP", "JPEG", "PNG", "TIFF", "WEBP")
_MODES = ("1", "L", "La", "LA", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_ORIENTATION = 0x0112
_NOTES = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}
_BITS_PER_SAMPLE = 258
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def read_picture(path: Path) -> NDArray[np.uint8]:
    """A picture file as uint8 (H, W, 3), upright as its camera noted; `to_rgb` says what becomes of its colours.

    Raises `UserError` for what is damaged, of another ending or format, too large, animated, or of more than 8 bits.
    """
    with open_picture(path) as picture:
        return picture_pixels(picture)


def picture_pixels(picture: Image.Image) -> NDArray[np.uint8]:
    """A picture that Pillow opened or made, as `read_picture` gives one of a file; raises `UserError` like it."""
    with _telling_damage():
        _check_extent(picture)
        check_picture(picture)
        return to_rgb(picture)


@contextmanager
def open_picture(path: Path, limit_bytes: int = PICTURE_LIMIT_BYTES) -> Iterator[Image.Image]:
    """Open the picture in a regular file without reading its pixels; any damage raises `UserError`."""
    with _telling_damage(), open_regular(path, "picture") as file:
        if path.suffix.lower() not in ENDINGS:
            raise ending_refused(path.suffix)
        if os.fstat(file.fileno()).st_size > limit_bytes:
            raise UserError(f"is larger than {limit_bytes:,} bytes, the most that is read: make it smaller")
        with Image.open(file, formats=_FORMATS) as picture:
            _check_extent(picture)
            yield picture


@contextmanager
def _telling_damage() -> Iterator[None]:
    try:
        yield
    except _BROKEN as error:
        raise UserError(
            f"cannot be read ({_reason(error)}): it is damaged or no picture, copy or write it again"
        ) from error


def ending_refused(suffix: str) -> UserError:
    """The error for a file whose ending is none that pictures are read from."""
    return UserError(
        f"the ending {suffix or '(none)'} is none of those of pictures, {', '.join(ENDINGS)}: convert it to PNG or JPEG"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "no content of a BMP, JPEG, PNG, TIFF or WebP file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _check_extent(picture: Image.Image) -> None:
    check_pixels(picture.height, picture.width)
    # The further pictures of a camera's JPEG (MPO) are previews and depth; the first one is the photo.
    if picture.format != "MPO" and getattr(picture, "is_animated", False):
        raise UserError("holds several frames: one is needed, write each of them as a file")


def check_pixels(height: int, width: int) -> None:
    """Refuse more pixels than are read, of a picture or of an array in its place; raises `UserError`."""
    if height * width > PICTURE_LIMIT_PIXELS:
        raise UserError(f"is {height:,} x {width:,} pixels: {PICTURE_LIMIT_PIXELS:,} at most, make it smaller")


def check_picture(picture: Image.Image) -> None:
    """Refuse what does not become 8-bit RGB without a decision of its owner; raises `UserError`."""
    bits = bits_per_channel(picture)
    if bits > 8:
        kind = "floats" if picture.mode == "F" else "whole numbers"
        raise UserError(f"holds {kind} of {bits} bits: 8 bits a channel are needed, convert it")
    if picture.mode not in _MODES:
        raise UserError(f"has colours of mode {picture.mode}: RGB or grey is needed, convert it")


def bits_per_channel(picture: Image.Image) -> int:
    """Bits per channel in the file: Pillow's modes do not show them, as it opens 16-bit RGB as 8-bit."""
    if picture.mode in ("I", "F") or picture.mode.startswith("I;"):
        return 16 if picture.mode.startswith("I;16") else 32
    if picture.format == "TIFF":
        return int(max(getattr(picture, "tag_v2", {}).get(_BITS_PER_SAMPLE, (1,))))
    tiles = getattr(picture, "tile", ())
    return 16 if picture.format == "PNG" and any(";16" in str(tile[3]) for tile in tiles) else 8


def is_turned(picture: Image.Image) -> bool:
    """Whether an opened picture carries an orientation note (EXIF, XMP), as far as the file was read.

    A PNG may carry it behind its pixels, and forgets nothing once it is loaded; a TIFF is turned while it is loaded.
    """
    if picture.format == "PNG" and not _NOTES & picture.info.keys():
        return False  # reading its notes would make Pillow decode all of it
    return picture.getexif().get(_ORIENTATION) in range(2, 9)


def to_rgb(picture: Image.Image) -> NDArray[np.uint8]:
    """A picture that `check_picture` lets pass, as uint8 (H, W, 3), upright.

    Grey becomes three equal channels, a palette its colours, CMYK is converted without a profile; transparent pixels
    show white, and a picture that is transparent everywhere raises `UserError`.
    """
    upright = ImageOps.exif_transpose(picture)
    if upright.has_transparency_data:
        upright = _on_white(upright.convert("RGBA"))
    return np.array(upright.convert("RGB"))


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.getchannel("A").getextrema() == (0, 0):
        raise UserError("is transparent everywhere: nothing is to be seen, write it without transparency")
    white = Image.new("RGBA", picture.size, "white")
    white.alpha_composite(picture)
    return white


def resize_picture(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Pixels (H, W, 3), or grey (H, W), at another (height, width).

    Areas are averaged where the picture shrinks, otherwise it is interpolated (bilinear).
    """
    if pixels.shape[:2] == size:
        return pixels
    height, width = size
    shrinks = height <= pixels.shape[0] and width <= pixels.shape[1]
    way = Image.Resampling.BOX if shrinks else Image.Resampling.BILINEAR
    return np.array(Image.fromarray(pixels).resize((width, height), way))


def normalize(
    images: NDArray[np.uint8],
    mean: Sequence[float] = IMAGE_MEAN,
    std: Sequence[float] = IMAGE_STD,
    scale: float = 255.0,
) -> NDArray[np.float32]:
    """(N, H, W, 3) bytes to (N, 3, H, W) float32, `(value / scale - mean) / std`: by default ImageNet's of 0..1."""
    centre, deviation = np.array(mean, np.float32), np.array(std, np.float32)
    scaled = ((images.astype(np.float32) / np.float32(scale) - centre) / deviation).astype(np.float32, copy=False)
    return np.ascontiguousarray(scaled.transpose(0, 3, 1, 2))
