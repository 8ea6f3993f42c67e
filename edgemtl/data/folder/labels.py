"""From what a label file holds to a target and its mask, and what is wrong where it cannot be.

Errors here do not name the file: whoever knows it does (`naming`).
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.data.folder.file_names import nfc
from edgemtl.data.folder.models import (
    ClassificationSpec,
    DepthSpec,
    FileSpec,
    MapSpec,
    NormalsSpec,
    RegressionSpec,
    SegmentationSpec,
    TableSpec,
)
from edgemtl.data.pictures import Header
from edgemtl.data.sample import FILL
from edgemtl.errors import UserError, unknown_name
from edgemtl.files.disk import read_bytes

__all__ = [
    "Target",
    "check_header",
    "decode",
    "missing_label",
    "parse_cells",
    "read_table",
    "resize_label",
    "tell_turned_away",
    "tell_unmeasured",
]

Array = NDArray[Any]
Target = tuple[Array, NDArray[np.bool_]]
_FAR_M = 1000.0
_TABLE_LIMIT_BYTES = 2**26
_LARGEST = (2**16 - 1, 2**31 - 1, 2**32 - 1)


def check_header(spec: FileSpec, header: Header, size: tuple[int, int], npy: bool) -> None:
    """Whether a label file of this header can belong to an image of `size`; raises `UserError` where it cannot."""
    if (header.height, header.width) != size:
        raise UserError(
            f"is {header.height} x {header.width} pixels, its image {size[0]} x {size[1]}: "
            "a label has its image's size, resize it (nearest) or make it again"
        )
    number, needed = header.dtype[0], "one channel of whole numbers (8 or 16 bits)"
    if isinstance(spec, NormalsSpec):
        fits = header.channels == 3 and (number == "f" if npy else header.dtype == "u1")
        needed = "three channels (x, y, z): 8-bit RGB in a PNG, floats in a .npy file"
    elif isinstance(spec, SegmentationSpec):
        fits = header.channels == 1 and number in "uib"
        needed += " with class ids; colours must be turned into ids"
    elif isinstance(spec, DepthSpec):
        fits = header.channels == 1 and number in "uif"
        needed = "one channel of whole numbers (with `scale`) or of float metres"
        if fits and header.dtype in ("u1", "i1"):
            raise UserError("holds depth in 8 bits, 256 steps: 16 bits are needed, or float metres in a .npy file")
        if fits and number in "ui" and spec.scale is None:
            raise UserError("holds whole numbers: say how many metres one is, with `scale` (0.001 for millimetres)")
    else:
        fits = header.channels == 1 and number in "uibf"
        needed = "one channel of 0 and 1, or of 0 and 255"
    if not fits:
        raise UserError(f"is {header}: needed is {needed}")


def decode(spec: FileSpec, array: Array) -> Target:
    """The target (see `Sample`) and the mask of a label file's numbers; raises `UserError` for values not allowed."""
    if isinstance(spec, SegmentationSpec):
        return _segmentation(spec, array)
    if isinstance(spec, DepthSpec):
        return _depth(spec, array)
    if isinstance(spec, NormalsSpec):
        return _normals(array)
    assert isinstance(spec, MapSpec)
    return _map(spec, array)


def _segmentation(spec: SegmentationSpec, array: Array) -> Target:
    ids = array.astype(np.int64)
    mask = np.ones(ids.shape, np.bool_) if spec.ignore is None else ids != spec.ignore
    ids = np.where(mask, ids - spec.first, 0)
    bad = (ids < 0) | (ids >= len(spec.classes))
    if bad.any():
        last = spec.first + len(spec.classes) - 1
        ignored = "" if spec.ignore is None else f" and {spec.ignore} (ignore)"
        raise UserError(
            f"holds {_list_values(array[bad])}: allowed are {spec.first} to {last}{ignored}; "
            "name the missing classes, or set `ignore` or `first`"
        )
    return ids, mask


def _depth(spec: DepthSpec, array: Array) -> Target:
    raw = array.astype(np.float64)
    metres = raw * (1.0 if spec.scale is None else spec.scale)
    mask = np.isfinite(metres) & (raw != spec.invalid) & (metres != 0)
    if spec.max_m is not None:
        mask &= metres <= spec.max_m
    bad = mask & ((metres < 0) | (metres > _FAR_M if spec.max_m is None else False))
    if bad.any():
        scale = "not set" if spec.scale is None else f"{spec.scale:g}"
        raise UserError(
            f"holds {_list_values(array[bad])}, {_list_metres(metres[bad])} with `scale` {scale}: "
            f"allowed is above 0 to {_FAR_M:g} m; set `scale`, `invalid` or `max_m`"
        )
    return np.where(mask, metres, FILL["depth"][0]).astype(np.float32), mask


def tell_unmeasured(spec: DepthSpec, array: Array, mask: NDArray[np.bool_]) -> str:
    """Warning about depth that is the largest number of its type, or 65.535 m; empty where there is none.

    Sensors and converters write it where nothing was measured.
    """
    metres = array * (1.0 if spec.scale is None else spec.scale)
    suspect = mask & (np.isin(array, _LARGEST) | np.isclose(metres, 65.535, rtol=1e-5))
    if not suspect.any():
        return ""
    value = array[suspect].flat[0]
    return (
        f"holds {_list_values(array[suspect])}, {_list_metres(metres[suspect])}, which many sensors write where they "
        f"measured nothing: set `invalid: {value:g}`, or `max_m`"
    )


def tell_turned_away(vectors: Array, mask: NDArray[np.bool_]) -> str:
    """Warning about normals that mostly point away from the camera, which no visible surface's does."""
    away = float((vectors[mask][:, 2] > 0).mean()) if mask.any() else 0.0
    if away < 0.9:
        return ""
    return (
        f"has normals that point away from the camera in {away:.0%} of the pixels: x is right, y down and z forward, "
        "so that what is seen has z below zero; turn the axes"
    )


def _normals(array: Array) -> Target:
    coded = array.dtype == np.uint8
    vectors = array.astype(np.float32)
    if coded:
        vectors = vectors * np.float32(2 / 255) - 1
    length = np.sqrt(np.einsum("hwc,hwc->hw", vectors, vectors))
    mask = np.isfinite(length) & (length > (0.1 if coded else 1e-6))
    if coded:
        mask &= (array[..., 0] | array[..., 1] | array[..., 2]) > 0
    rough = mask & (np.abs(length - 1) > 0.25)
    if rough.mean() > 0.05:
        raise UserError(
            f"has vectors of length {np.median(length[rough]):.2f} (in {rough.mean():.0%} of the pixels): "
            "normals have length 1, in a PNG as n = 2p/255-1, and are zero where there is none"
        )
    vectors *= (1 / np.where(mask, length, np.float32(1)))[..., None]
    vectors[~mask] = FILL["normals"]
    return vectors, mask


def _map(spec: MapSpec, array: Array) -> Target:
    mask = np.ones(array.shape, np.bool_) if spec.ignore is None else array != spec.ignore
    if array.dtype.kind == "f":
        mask &= np.isfinite(array)
    values = np.where(mask, array, 0)
    if spec.threshold is not None:
        return (values > spec.threshold).astype(np.float32), mask
    top = 255 if values.max() > 1 else 1
    bad = (values != 0) & (values != top)
    if bad.any():
        raise UserError(
            f"holds {_list_values(array[bad])}: allowed are 0 and 1, or 0 and 255; set `threshold` or `ignore`"
        )
    return (values > 0).astype(np.float32), mask


def _list_values(values: Array) -> str:
    """The distinct values, the first five, and how many pixels have one of them."""
    distinct = np.unique(values)
    shown = ", ".join(f"{value:g}" for value in distinct[:5].tolist())
    more = f" and {len(distinct) - 5} more" if len(distinct) > 5 else ""
    plural = "" if len(distinct) == 1 else "s"
    return f"the value{plural} {shown}{more} in {values.size} pixel{'' if values.size == 1 else 's'}"


def _list_metres(metres: Array) -> str:
    low, high = float(metres.min()), float(metres.max())
    return f"{low:g} m" if low == high else f"{low:g} to {high:g} m"


def missing_label(spec: FileSpec, size: tuple[int, int]) -> Target:
    """Target and mask of an image without a label."""
    fill = FILL.get(spec.kind, (0.0,))
    kind = np.int64 if isinstance(spec, SegmentationSpec) else np.float32
    target = np.full((*size, len(fill)), fill, kind)
    return (target if len(fill) > 1 else target[..., 0]), np.zeros(size, np.bool_)


def resize_label(kind: str, target: Array, mask: NDArray[np.bool_], size: tuple[int, int]) -> Target:
    """Target and mask at another size, by the nearest pixel; a shrunk pixel is an edge where it covers one.

    Edges are a pixel thin: picking every n-th pixel would leave dots.
    """
    if mask.shape == size:
        return target, mask
    if kind == "edges" and size[0] <= mask.shape[0] and size[1] <= mask.shape[1]:
        return _any_of(target * mask, size), _any_of(mask, size)
    rows, columns = (((np.arange(n) + 0.5) * old / n).astype(np.intp) for n, old in zip(size, mask.shape, strict=True))
    return target.take(rows, 0).take(columns, 1), mask.take(rows, 0).take(columns, 1)


def _any_of(values: Array, size: tuple[int, int]) -> Array:
    """The largest of the pixels that each of the fewer pixels covers."""
    for axis, count in enumerate(size):
        starts = np.arange(count) * values.shape[axis] // count
        values = np.maximum.reduceat(values, starts, axis=axis)
    return values


def read_table(path: Path, spec: TableSpec) -> dict[str, dict[str, str]]:
    """Rows of a CSV file by the cell that names the image; raises `UserError` for a column that is not there."""
    wanted = [spec.image, *_columns(spec)]
    if not path.exists():
        raise UserError("the file is missing")
    try:
        text = read_bytes(path, "table", _TABLE_LIMIT_BYTES).decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""))
        for column in wanted:
            if column not in (reader.fieldnames or ()):
                raise unknown_name("column", column, reader.fieldnames or ())
        rows: dict[str, dict[str, str]] = {}
        for row in reader:
            cells = {column: nfc((row[column] or "").strip()) for column in wanted}
            if rows.setdefault(cells[spec.image], cells) != cells:
                raise UserError(
                    f"line {reader.line_num}: {cells[spec.image]!r:.80} is there before with another label: keep one"
                )
        return rows
    except UnicodeDecodeError as error:
        raise UserError(f"is not UTF-8 text ({error.reason} at byte {error.start}): save it as UTF-8") from error
    except csv.Error as error:
        raise UserError(f"cannot be read as CSV ({error})") from error


def _columns(spec: TableSpec) -> Sequence[str]:
    if isinstance(spec, ClassificationSpec):
        return [spec.column]
    assert isinstance(spec, RegressionSpec)
    return spec.columns


def parse_cells(spec: TableSpec, row: Mapping[str, str] | None) -> Target:
    """Target and mask of one row; no row or an empty cell is no label. Raises `UserError` for a value not allowed."""
    cells = [row[column] for column in _columns(spec)] if row else []
    if isinstance(spec, ClassificationSpec):
        if not cells or not cells[0]:
            return np.asarray(0, np.int64), np.asarray(False)
        classes = [nfc(name) for name in spec.classes]
        if cells[0] not in classes:
            raise unknown_name("class", cells[0], classes)
        return np.asarray(classes.index(cells[0]), np.int64), np.asarray(True)
    if not cells or not all(cells):
        return np.zeros(len(_columns(spec)), np.float32), np.asarray(False)
    return np.array([_number(cell) for cell in cells], np.float32), np.asarray(True)


def _number(cell: str) -> float:
    try:
        value = float(cell)
    except ValueError as error:
        raise UserError(f"{cell!r} is no number") from error
    if not math.isfinite(value) or abs(value) > np.finfo(np.float32).max:
        raise UserError(f"{cell!r} is no finite number of 32 bits")
    return value
