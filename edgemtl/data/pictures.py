"""Reading untrusted label files: any damage is one `UserError`, nothing is executed."""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgemtl.errors import UserError
from edgemtl.files.disk import open_regular
from edgemtl.files.images import bits_per_channel, check_pixels, is_turned, open_picture
from edgemtl.tasks import Header

__all__ = ["NPY_BROKEN", "read_array", "read_header"]

Array = NDArray[Any]
NPY_BROKEN = (OSError, ValueError, EOFError, SyntaxError, TokenError, TypeError, RecursionError, OverflowError)
"""Exceptions with which NumPy reports a damaged .npy file: its header is a Python literal."""

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


def _npy(path: Path) -> Array:
    if path.exists():
        open_regular(path, "label").close()
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise UserError("the file is missing") from error
    except NPY_BROKEN as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"cannot be read ({reason}): a .npy file of numbers is needed, write it again") from error
    if not isinstance(array, np.ndarray) or array.ndim not in (2, 3) or 0 in array.shape:
        raise UserError(f"has the shape {getattr(array, 'shape', None)}: (H, W) or (H, W, channels) is needed")
    check_pixels(*array.shape[:2])
    return array


def read_header(path: Path) -> Header:
    """Size, channels and type of a label file (.npy or a picture) without reading it; raises `UserError`."""
    if path.suffix == ".npy":
        array = _npy(path)
        return Header(array.shape[0], array.shape[1], array.shape[2] if array.ndim == 3 else 1, array.dtype.str[1:])
    with open_picture(path) as picture:
        channels, dtype = _MODES.get(picture.mode, (len(picture.getbands()), picture.mode))
        if dtype == "u1" and bits_per_channel(picture) > 8:  # no longer known once the note below was read
            dtype = "u2"  # Pillow would read the upper half of each number
        _refuse_turned(picture)
        return Header(picture.height, picture.width, channels, dtype)


def read_array(path: Path) -> Array:
    """Numbers of a label file, (H, W) or (H, W, channels), the indices of a palette image. Raises `UserError`."""
    if path.suffix == ".npy":
        array = np.array(_npy(path))
        return array[..., 0] if array.ndim == 3 and array.shape[2] == 1 else array
    with open_picture(path) as picture:
        _refuse_turned(picture)
        return np.array(picture)


def _refuse_turned(picture: Image.Image) -> None:
    if is_turned(picture):
        raise UserError("carries a note (EXIF) to turn it, which a label cannot follow: turn the label itself")
