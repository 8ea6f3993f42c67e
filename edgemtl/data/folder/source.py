"""The source `folder`: a user's own images and labels, described by a YAML file.

Opening reads every file's name and header; `check` reads everything. Both report all problems at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from edgemtl.data.folder.check import QUICK_IMAGES, CheckReport, check_contents, check_some_labels
from edgemtl.data.folder.data import FolderData
from edgemtl.data.folder.files import Item, spec_path
from edgemtl.data.folder.problems import Finding, Problems
from edgemtl.data.folder.scan import open_folder
from edgemtl.data.sample import Sample, Samples, Split, require_split
from edgemtl.errors import UserError
from edgemtl.progress import Report, silent
from edgemtl.tasks import Task

__all__ = ["FolderSource"]


class _FolderSplit(Samples):
    """One split: images and labels are read from their files every time."""

    def __init__(self, data: FolderData, items: Sequence[Item]) -> None:
        self._data, self._items = data, items

    def __len__(self) -> int:
        return len(self._items)

    def read(self, position: int) -> Sample:
        return self._data.sample(self._items[position])


class FolderSource:
    """A user's own data set; docs/data.md describes its YAML file.

    `size` is (height, width) of the samples: images are resized (averaged where they shrink), labels picked by the
    nearest pixel. Raises one `UserError` with every problem that names and headers show: files missing, of a wrong size
    or type, empty splits, keys that are not known. `warnings` holds what names and headers show that may be meant so.
    """

    license_note = ""

    def __init__(self, path: Path | str, size: tuple[int, int]) -> None:
        if not all(8 <= side <= 4096 for side in size):
            raise UserError(
                f"images cannot be resized to {size[0]} x {size[1]} pixels: height and width go from 8 to 4096"
            )
        self.size = size
        self.path = spec_path(Path(path))
        problems = self._problems()
        self._opened = open_folder(self.path, size, problems)
        problems.stop()
        self.warnings: tuple[Finding, ...] = problems.warnings
        self.name = self._opened.data.root.name
        self.tasks: tuple[Task, ...] = self._opened.data.tasks
        self._digest = self._opened.digest()

    def _problems(self) -> Problems:
        return Problems(f"data set {self.path}")

    @property
    def fingerprint(self) -> str:
        """Hash of the YAML file, every file's name and number of bytes, and the size."""
        return hashlib.sha256(f"{self._digest} {self.size}".encode()).hexdigest()[:16]

    def split(self, name: Split) -> Sequence[Sample]:
        """Samples of one split, which raise `UserError` for a damaged file; so does an unknown split."""
        return _FolderSplit(self._opened.data, self._opened.splits[require_split(name)])

    def check(self, report: Report = silent) -> CheckReport:
        """Read every file; `report` gets their number.

        Raises one `UserError` with all problems: damaged files, values outside a task's range, tasks without one valid
        label in a split or with a single class to learn, the same image in two splits. The result holds the warnings,
        among them classes that a split lacks.
        """
        problems = self._problems()
        checked = check_contents(self._opened, problems, report)
        problems.stop()
        return replace(checked, warnings=(*self.warnings, *checked.warnings))

    def first_look(self, images: int = QUICK_IMAGES) -> tuple[Finding, ...]:
        """The part of `check` that takes seconds, from the labels of a few `images` of every split; warnings so far.

        Raises one `UserError` with all problems.
        """
        problems = self._problems()
        check_some_labels(self._opened, problems, images)
        problems.stop()
        return (*self.warnings, *problems.warnings)
