"""Reading an opened data set: an image, and the label of each of its tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from edgemtl.data.folder.file_names import Names
from edgemtl.data.folder.files import Item
from edgemtl.data.folder.labels import Cells, check_header
from edgemtl.data.pictures import read_array, read_header
from edgemtl.data.sample import Sample
from edgemtl.data.teachers import Teacher, with_pseudo_labels
from edgemtl.errors import UserError, naming
from edgemtl.files.images import check_picture, is_turned, open_picture, resize_picture, to_rgb
from edgemtl.tasks import FileSpec, TableSpec, Target, Task, TaskSpec, kind_of

__all__ = ["FolderData"]


@dataclass(frozen=True)
class FolderData:
    """An opened data set: where it is, what describes it, and its tables' rows by image."""

    root: Path
    specs: dict[str, TaskSpec]
    rows: dict[str, dict[str, Cells]]
    size: tuple[int, int]
    tasks: tuple[Task, ...] = ()
    teachers: Mapping[str, Teacher] = field(default_factory=dict)
    names: Names = field(default_factory=Names)

    def label_file(self, spec: FileSpec, item: Item) -> tuple[Path, str]:
        """The label file of an image, and how errors call it."""
        shown = spec.files.replace("{split}", item.folder).replace("{name}", item.name)
        return self.names.find(self.root, shown), shown

    def label(self, spec: FileSpec, item: Item, image_size: tuple[int, int] | None = None) -> NDArray[Any] | None:
        """The numbers of an image's label file; none where it lacks one and may. Raises `UserError` with its name.

        Without `image_size`, opening the data set has compared the sizes.
        """
        path, shown = self.label_file(spec, item)
        if spec.may_lack and not path.exists():
            return None
        with naming(shown):
            header = read_header(path)
            check_header(spec, header, image_size or (header.height, header.width), path.suffix == ".npy")
            return read_array(path)

    def target(self, name: str, item: Item, image_size: tuple[int, int]) -> Target:
        """One task's target and mask at the image's own size; raises `UserError` with the file's name."""
        spec = self.specs[name]
        if isinstance(spec, TableSpec):
            with naming(f"{spec.csv}, {item.shown}"):
                target = spec.parse(self.rows[name].get(item.shown, ()))
                if not target[1].any() and not spec.may_lack:
                    raise UserError(f"the label of task {name!r} is missing: add it, or set `partial: true`")
                return target
        assert isinstance(spec, FileSpec)
        array = self.label(spec, item, image_size)
        if array is None:
            task = next(task for task in self.tasks if task.name == name)
            return kind_of(task).missing(task, image_size)
        with naming(self.label_file(spec, item)[1]):
            return spec.decode(array)

    def check_image(self, picture: Image) -> None:
        """Refuse an opened image that cannot be used, or not with its labels; raises `UserError`."""
        check_picture(picture)
        if is_turned(picture) and any(spec.located for spec in self.specs.values()):
            raise UserError("carries a note (EXIF) to turn it, which its labels do not: turn the picture itself")

    def pixels(self, item: Item) -> NDArray[np.uint8]:
        """The image, uint8 (H, W, 3); raises `UserError` with the file's name."""
        with naming(item.shown), open_picture(item.path) as picture:
            self.check_image(picture)
            pixels = to_rgb(picture)
            self.check_image(picture)  # some notes stand behind the pixels
            return pixels

    def sample(self, item: Item) -> Sample:
        """The image and its labels at the source's size; raises `UserError` with the file's name."""
        pixels = self.pixels(item)
        height, width = pixels.shape[:2]
        labels = {
            task.name: kind_of(task).resize(self.target(task.name, item, (height, width)), (height, width), self.size)
            for task in self.tasks
        }
        targets, masks = ({name: label[part] for name, label in labels.items()} for part in (0, 1))
        return with_pseudo_labels(Sample(resize_picture(pixels, self.size), targets, masks), self.tasks, self.teachers)
