"""Schema of the YAML file of a user's own data set."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from edgemtl.errors import brief
from edgemtl.files.disk import FILE_NAME_BYTES, fits
from edgemtl.tasks import Task, make_task

__all__ = [
    "SPECS",
    "ClassificationSpec",
    "DepthSpec",
    "FileSpec",
    "FolderSpec",
    "Folders",
    "Fractions",
    "MapSpec",
    "NormalsSpec",
    "RegressionSpec",
    "SegmentationSpec",
    "Strict",
    "TableSpec",
    "TaskSpec",
    "folder_kinds",
    "relative",
]


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
Share = Annotated[float, Field(ge=0, le=1)]


class Strict(BaseModel):
    """No unknown keys, no text that is taken for a number, no infinities."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Folders(Strict):
    """A folder of images per split."""

    train: RelativePath
    validation: RelativePath
    test: RelativePath
    calibration: RelativePath | None = None


class Fractions(Strict):
    """Shares of one folder's images per split; they add up to one."""

    train: Share
    validation: Share
    test: Share
    calibration: Share = 0.0

    @model_validator(mode="after")
    def _whole(self) -> Fractions:
        total = self.train + self.validation + self.test + self.calibration
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares add up to {total:g}: they must add up to 1")
        return self


class TaskSpec(Strict):
    """Fields of every task: its kind, and whether images may lack its label (`partial`).

    `teacher` is an ONNX file whose outputs stand in for labels that lack; with one, all of them may.
    """

    kind: str
    partial: bool = False
    teacher: Annotated[str, AfterValidator(relative)] | None = None

    @property
    def may_lack(self) -> bool:
        """Whether an image without a label is no mistake."""
        return self.partial or self.teacher is not None

    def task(self, name: str) -> Task:
        """The task as edgemtl knows it."""
        return make_task(name, self.kind)


class FileSpec(TaskSpec):
    """A task with a label file per image: `files` is its path with {name} and, where wanted, {split}."""

    files: Pattern


class SegmentationSpec(FileSpec):
    """Class ids: the first class is `first`, the others follow; `ignore` marks pixels without a class."""

    classes: Annotated[Names, Field(min_length=2)]
    first: int = Field(0, ge=0)
    ignore: int | None = 255

    @model_validator(mode="after")
    def _apart(self) -> SegmentationSpec:
        if self.ignore is not None and self.first <= self.ignore < self.first + len(self.classes):
            name = self.classes[self.ignore - self.first]
            raise ValueError(f"ignore: {self.ignore} is also the value of the class {name!r}: change ignore or first")
        return self

    def task(self, name: str) -> Task:
        """The task of that name that this part of the file declares."""
        return make_task(name, self.kind, classes=self.classes)


class DepthSpec(FileSpec):
    """Depth: a value times `scale` is metres.

    Not valid are the value `invalid`, zero, what is not finite, and what lies beyond `max_m` metres.
    """

    scale: float | None = Field(None, gt=0)
    invalid: float = 0
    max_m: float | None = Field(None, gt=0)


class NormalsSpec(FileSpec):
    """Normals in the camera frame (x right, y down, z forward): 8-bit PNG with n = 2p/255-1, or .npy vectors."""

    encoding: Annotated[str, Field(pattern=r"^2p/255-1$")] = "2p/255-1"


class MapSpec(FileSpec):
    """Edges or saliency: 0 and 1, or 0 and 255; with `threshold`, what lies above it. `ignore` marks unknown pixels."""

    threshold: float | None = None
    ignore: int | None = None


class TableSpec(TaskSpec):
    """A task whose labels stand in a table: a CSV file with a header and a column that names the image."""

    csv: RelativePath
    image: str


class ClassificationSpec(TableSpec):
    """The class of the whole image, by its name in `column`."""

    column: str
    classes: Annotated[Names, Field(min_length=2)]

    def task(self, name: str) -> Task:
        """The task of that name that this part of the file declares."""
        return make_task(name, self.kind, classes=self.classes)


class RegressionSpec(TableSpec):
    """Numbers of the whole image, one per column."""

    columns: Annotated[Names, Field(min_length=1)]

    def task(self, name: str) -> Task:
        """The task of that name that this part of the file declares."""
        return make_task(name, self.kind, channels=len(self.columns))


SPECS: dict[str, type[TaskSpec]] = {
    "segmentation": SegmentationSpec,
    "depth": DepthSpec,
    "normals": NormalsSpec,
    "edges": MapSpec,
    "saliency": MapSpec,
    "classification": ClassificationSpec,
    "regression": RegressionSpec,
}


def folder_kinds() -> tuple[str, ...]:
    """The kinds of task that a data set of one's own may have."""
    return tuple(SPECS)


@dataclass(frozen=True)
class FolderSpec:
    """A described data set: images per split or one folder with shares, and how each task's labels are stored."""

    images: Folders | str
    split: Fractions
    tasks: dict[str, TaskSpec]
