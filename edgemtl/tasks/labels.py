"""How labels lie in the files of a data set: what a YAML file may say of them, and how they are read.

Every kind that can be declared in a data file has a spec of its own. Errors here do not name the file: the caller
does (`edgemtl.errors.naming`).
"""

from __future__ import annotations

import math
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, BeforeValidator, Field

from edgemtl.errors import UserError, brief
from edgemtl.files.paths import FILE_NAME_BYTES, fits
from edgemtl.schema import Strict

__all__ = [
    "Exact",
    "FileSpec",
    "Header",
    "Names",
    "RelativePath",
    "TableSpec",
    "Target",
    "TaskSpec",
    "list_values",
    "parse_number",
    "refuse_header",
    "relative",
]

Array = NDArray[Any]
Target = tuple[Array, NDArray[np.bool_]]
"""A label and where it is valid: what a `Sample` holds of one task."""

_NUMBERS = {"b": "truth values", "u": "whole numbers", "i": "signed whole numbers", "f": "floats"}


@dataclass(frozen=True)
class Header:
    """Header of an array file: size, channels (1 for a plain map) and NumPy type, before the array is read."""

    height: int
    width: int
    channels: int
    dtype: str

    def __str__(self) -> str:
        number = _NUMBERS.get(self.dtype[0])
        values = f"{8 * int(self.dtype[1:])}-bit {number}" if number and self.dtype[1:].isdigit() else self.dtype
        return f"{self.height} x {self.width} with {self.channels} channel{'s'[: self.channels - 1]} of {values}"


def relative(path: str) -> str:
    """A path below the YAML file's folder; anything that leaves it is refused."""
    parts = PurePosixPath(path).parts
    if not path or PurePosixPath(path).is_absolute() or ".." in parts or re.match(r"[A-Za-z]:", path):
        raise ValueError(f"the path {path!r} leaves the folder of the YAML file: give a path below it, without ..")
    if "\\" in path or any(ord(letter) < 32 for letter in path):
        raise ValueError(f"the path {path!r} has a backslash or a control character: separate folders with /")
    if not fits(path):
        raise ValueError(f"the path {brief(path)} is too long: at most {FILE_NAME_BYTES} bytes a name are allowed")
    return path


def _pattern(path: str) -> str:
    relative(path)
    fields = re.findall(r"{([^{}]*)}", path)
    unknown = [field for field in fields if field not in ("name", "split")]
    if unknown or "name" not in fields or set("{}") & set(re.sub(r"{[^{}]*}", "", path)):
        raise ValueError(f"the pattern {path!r} needs {{name}} and may use {{split}}, nothing else in braces")
    if PurePosixPath(path).suffix not in (".npy", ".png", ".tif", ".tiff", ".bmp"):
        raise ValueError(f"the pattern {path!r} ends in no label format: allowed are .png, .npy, .tif, .tiff, .bmp")
    return path


def _text(value: Any) -> Any:
    """Class names: text, or whole numbers taken as text; YAML reads a bare yes, no, on and off as true or false."""
    if isinstance(value, bool):
        raise ValueError(f"YAML reads this class name as {str(value).lower()}: put it in quotes")
    return str(value) if isinstance(value, int) else value


def _unique(names: list[str]) -> list[str]:
    twice = sorted(name for name, count in Counter(names).items() if count > 1)
    if twice:
        raise ValueError(f"{', '.join(twice[:5])} {'is' if len(twice) == 1 else 'are'} there twice: every name once")
    return names


RelativePath = Annotated[str, AfterValidator(relative)]
Pattern = Annotated[str, AfterValidator(_pattern)]
Names = Annotated[list[Annotated[str, BeforeValidator(_text)]], Field(max_length=10_000), AfterValidator(_unique)]


class Exact(Strict, strict=True):
    """A part of a data file: no text in it is taken for a number."""


class TaskSpec(Exact):
    """Fields of every task: its kind, and whether images may lack its label (`partial`).

    `teacher` is an ONNX file whose outputs stand in for labels that lack; with one, all of them may.
    """

    unit: ClassVar[str] = "pixel"
    measured: ClassVar[bool] = False
    """Whether a check reports the smallest and largest valid value."""
    located: ClassVar[bool] = False
    """Whether labels are positions in the image, so that an orientation note of the picture would misplace them."""

    kind: str
    partial: bool = False
    teacher: Annotated[str, AfterValidator(relative)] | None = None

    @property
    def may_lack(self) -> bool:
        """Whether an image without a label is no mistake."""
        return self.partial or self.teacher is not None

    @property
    def class_names(self) -> Sequence[str]:
        """The classes or points that the task has; none where it has channels only."""
        return ()

    @property
    def channels(self) -> int | None:
        """Channels of the task, where neither its kind nor its classes determine them."""
        return None

    @property
    def counted(self) -> Sequence[str]:
        """Names to count valid labels by, which are whole numbers from 0; none where labels are no classes."""
        return self.class_names

    def ignored_value(self) -> str:
        """The value that marks pixels without a label, in words; empty where there is none."""
        return ""

    def single_class_remedy(self, ignored: bool) -> str:
        """Advice where every valid label is of one class; `ignored` says that some pixels are not valid."""
        return "correct the labels, or add images of other classes"


class FileSpec(TaskSpec):
    """A task with a label file per image: `files` is its path with {name} and, where wanted, {split}."""

    located: ClassVar[bool] = True

    files: Pattern

    @abstractmethod
    def check_header(self, header: Header, npy: bool) -> None:
        """Refuse a file of this header, as large as its image; raises `UserError`."""

    @abstractmethod
    def decode(self, array: Array) -> Target:
        """The target and mask of a file's numbers (H, W) or (H, W, C); raises `UserError` for values not allowed."""

    def doubts(self, array: Array, target: Target) -> str:
        """Warning about a label that can be read but looks wrong; empty if it looks right."""
        return ""


class TableSpec(TaskSpec):
    """A task whose labels stand in a table: a CSV file with a header and a column that names the image.

    An image has one row, or any number of them where `several`.
    """

    unit: ClassVar[str] = "image"
    several: ClassVar[bool] = False

    csv: RelativePath
    image: str

    @property
    @abstractmethod
    def label_columns(self) -> Sequence[str]:
        """The columns that hold the label, in order."""

    @abstractmethod
    def parse(self, rows: Sequence[Sequence[str]]) -> Target:
        """The target and mask of an image's rows (cells in the order of `label_columns`).

        No row, and empty cells, are no label. Raises `UserError` for a value not allowed.
        """


def refuse_header(header: Header, needed: str) -> UserError:
    """The error for a label file whose channels or numbers do not fit."""
    return UserError(f"is {header}: needed is {needed}")


def list_values(values: Array) -> str:
    """The distinct values, the first five, and how many pixels have one of them."""
    distinct = np.unique(values)
    shown = ", ".join(f"{value:g}" for value in distinct[:5].tolist())
    more = f" and {len(distinct) - 5} more" if len(distinct) > 5 else ""
    plural = "" if len(distinct) == 1 else "s"
    return f"the value{plural} {shown}{more} in {values.size} pixel{'' if values.size == 1 else 's'}"


def parse_number(cell: str) -> float:
    """A cell's text as a number; raises `UserError` for what is none, or not finite in 32 bits."""
    try:
        value = float(cell)
    except ValueError as error:
        raise UserError(f"{cell!r} is no number") from error
    if not math.isfinite(value) or abs(value) > np.finfo(np.float32).max:
        raise UserError(f"{cell!r} is no finite number of 32 bits")
    return value
