"""The source `folder`: a user's own images and labels, described by a YAML file.

Opening looks at every file's name and header; `check` reads everything. Both tell all problems at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from edgemtl._files import sha256, within
from edgemtl._images import check_picture, is_turned, open_picture, resize_picture, to_rgb
from edgemtl.data._folder_files import Item, Row, list_splits, match_tables, spec_path
from edgemtl.data._folder_labels import Target, absent, check_header, decode, fit, parse_cells
from edgemtl.data._folder_models import FileSpec, TableSpec, TaskSpec
from edgemtl.data._folder_spec import read_spec
from edgemtl.data._pictures import read_array, read_header
from edgemtl.data._problems import Problems
from edgemtl.data._sample import SPLITS, Sample, Samples, Split, require_split
from edgemtl.data._teachers import Teacher, onnx_teacher, taught
from edgemtl.errors import UserError, naming
from edgemtl.tasks import Task

__all__ = ["CheckReport", "FolderSource"]

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CheckReport:
    """What a full check found: images per split, and per split and task the share of images with a valid label."""

    images: dict[Split, int]
    labelled: dict[Split, dict[str, float]]


@dataclass(frozen=True)
class _Data:
    """An opened data set: where it is, what describes it, and its tables' rows by image."""

    root: Path
    specs: dict[str, TaskSpec]
    rows: dict[str, dict[str, Row]]
    size: tuple[int, int]
    tasks: tuple[Task, ...] = ()
    teachers: Mapping[str, Teacher] = field(default_factory=dict)

    def label_file(self, spec: FileSpec, item: Item) -> tuple[Path, str]:
        """The label file of an image, and how errors call it."""
        shown = spec.files.replace("{split}", item.folder).replace("{name}", item.name)
        return self.root / shown, shown

    def target(self, name: str, item: Item, image_size: tuple[int, int]) -> Target:
        """One task's target and mask at the image's own size; raises `UserError` with the file's name."""
        spec = self.specs[name]
        if isinstance(spec, TableSpec):
            with naming(f"{spec.csv}, {item.shown}"):
                target = parse_cells(spec, self.rows[name].get(item.shown))
                if not target[1] and not spec.may_lack:
                    raise UserError(f"the label of task {name!r} is missing: add it, or set `partial: true`")
                return target
        assert isinstance(spec, FileSpec)
        path, shown = self.label_file(spec, item)
        if spec.may_lack and not path.exists():
            return absent(spec, image_size)
        with naming(shown):
            check_header(spec, read_header(path), image_size, path.suffix == ".npy")
            return decode(spec, read_array(path))

    def check_image(self, picture: Image) -> None:
        """Refuse an opened image that cannot be used, or not with its labels; raises `UserError`."""
        check_picture(picture)
        if is_turned(picture) and any(isinstance(spec, FileSpec) for spec in self.specs.values()):
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
        found = {name: self.target(name, item, (height, width)) for name in self.specs}
        for name, (target, mask) in found.items():
            if mask.ndim:
                found[name] = fit(self.specs[name].kind, target, mask, self.size)
        targets = {name: target for name, (target, _) in found.items()}
        masks = {name: mask for name, (_, mask) in found.items()}
        return taught(Sample(resize_picture(pixels, self.size), targets, masks), self.tasks, self.teachers)


class _FolderSplit(Samples):
    """One split: images and labels are read from their files every time."""

    def __init__(self, data: _Data, items: Sequence[Item]) -> None:
        self._data, self._items = data, items

    def __len__(self) -> int:
        return len(self._items)

    def read(self, place: int) -> Sample:
        return self._data.sample(self._items[place])


class FolderSource:
    """A user's own data set; docs/data.md describes its YAML file.

    `size` is (height, width) of the samples: images are resized (averaged where they shrink), labels picked by the
    nearest pixel. Raises one `UserError` with every problem that names and headers show: files missing, of a wrong size
    or type, empty splits, keys that are not known.
    """

    license_note = ""

    def __init__(self, path: Path | str, size: tuple[int, int]) -> None:
        if not all(8 <= side <= 4096 for side in size):
            raise UserError(
                f"images cannot be resized to {size[0]} x {size[1]} pixels: height and width go from 8 to 4096"
            )
        self.size = size
        self.path = spec_path(Path(path))
        spec = read_spec(self.path)
        root = self.path.resolve().parent
        self.name = root.name
        self.tasks: tuple[Task, ...] = tuple(task.task(name) for name, task in spec.tasks.items())
        problems = Problems(f"data set {self.path}")
        self._splits = list_splits(root, spec, problems)
        problems.stop()
        teachers = {name: root / task.teacher for name, task in spec.tasks.items() if task.teacher is not None}
        opened = _open_teachers(root, teachers, problems)
        tables = match_tables(root, spec, self._splits, problems)
        self._data = _Data(root, spec.tasks, tables, size, self.tasks, opened)
        sizes = _scan(self._data, self._splits, problems)
        problems.stop()
        self._digest = _digest(self.path, self._splits, sizes, teachers.values())

    @property
    def identity(self) -> str:
        """Hash of the YAML file, every file's name and number of bytes, and the size."""
        return hashlib.sha256(f"{self._digest} {self.size}".encode()).hexdigest()[:16]

    def split(self, name: Split) -> Sequence[Sample]:
        """Samples of one split, which raise `UserError` for a damaged file; so does an unknown split."""
        return _FolderSplit(self._data, self._splits[require_split(name)])

    def check(self, progress: Progress | None = None) -> CheckReport:
        """Read every file; `progress(done, total)` is called as it goes.

        Raises one `UserError` with all problems: damaged files, values outside a task's range, tasks without one valid
        label in a split, the same image in two splits.
        """
        problems = Problems(f"data set {self.path}")
        total, done = sum(map(len, self._splits.values())), 0
        labelled = {split: dict.fromkeys(self._data.specs, 0) for split in SPLITS}
        seen: dict[str, tuple[Split, str]] = {}
        for split in SPLITS:
            for item in self._splits[split]:
                for name in _check_item(self._data, item, problems):
                    labelled[split][name] += 1
                _note_copy(seen, split, item, problems)
                done += 1
                if progress:
                    progress(done, total)
        if not problems.count:
            _tell_unlabelled(labelled, problems, {n for n, spec in self._data.specs.items() if spec.teacher})
        problems.stop()
        shares = {
            split: {name: count / len(self._splits[split]) for name, count in labelled[split].items()}
            for split in SPLITS
        }
        return CheckReport({split: len(self._splits[split]) for split in SPLITS}, shares)


def _scan(data: _Data, splits: Mapping[Split, list[Item]], problems: Problems) -> dict[str, int]:
    """Look at every file's header; bytes of every file by its name."""
    sizes: dict[str, int] = {}
    safe: dict[Path, bool] = {}
    for split, items in splits.items():
        there = dict.fromkeys(data.specs, 0)
        for item in items:
            size = _look_at_image(data, item, sizes, problems)
            for name, path, shown in _label_files(data, item):
                if not path.exists() and data.specs[name].may_lack:
                    continue
                there[name] += 1
                with problems.collect(), naming(shown):
                    _look_at_label(data, name, path, size, safe)
                    sizes[shown] = path.stat().st_size
            for name in data.rows:
                there[name] += 1
                with problems.collect():
                    there[name] -= not data.target(name, item, (0, 0))[1]
        _tell_absent(data, split, there, problems)
    return sizes


def _look_at_image(data: _Data, item: Item, sizes: dict[str, int], problems: Problems) -> tuple[int, int] | None:
    """The image's size as its header tells it; a header that cannot be used is a problem, and the size is unknown."""
    size: tuple[int, int] | None = None
    with problems.collect(), naming(item.shown), open_picture(item.path) as picture:
        size = picture.height, picture.width
        sizes[item.shown] = item.path.stat().st_size
        data.check_image(picture)
    return size


def _label_files(data: _Data, item: Item) -> Iterator[tuple[str, Path, str]]:
    for name, spec in data.specs.items():
        if isinstance(spec, FileSpec):
            yield name, *data.label_file(spec, item)


def _look_at_label(data: _Data, name: str, path: Path, size: tuple[int, int] | None, safe: dict[Path, bool]) -> None:
    """Raise where a label file is missing, lies elsewhere, or its header does not fit."""
    spec = data.specs[name]
    assert isinstance(spec, FileSpec)
    if path.parent not in safe:
        safe[path.parent] = within(data.root, path.parent)
    if not safe[path.parent] or (path.is_symlink() and not within(data.root, path)):
        raise UserError(f"is a link that leaves the folder {data.root.name}: copy the file into it")
    if not path.is_file():
        raise UserError(f"the label of task {name!r} is missing: add it, or set `partial: true` for the task")
    header = read_header(path)
    check_header(spec, header, size or (header.height, header.width), path.suffix == ".npy")


def _tell_absent(data: _Data, split: Split, there: Mapping[str, int], problems: Problems) -> None:
    for name, count in there.items():
        known = name in data.rows or isinstance(data.specs[name], FileSpec)
        spec = data.specs[name]
        if known and not count and spec.partial and spec.teacher is None:
            problems.add(f"the split {split} has no label of task {name!r} at all: add some, or remove the task")


def _check_item(data: _Data, item: Item, problems: Problems) -> list[str]:
    """Tasks that this image has a valid label for."""
    size: tuple[int, int] | None = None
    with problems.collect():
        pixels = data.pixels(item)
        size = pixels.shape[0], pixels.shape[1]
    labelled = []
    for name in data.specs:
        if size is not None:
            with problems.collect():
                if np.any(data.target(name, item, size)[1]):
                    labelled.append(name)
    return labelled


def _note_copy(seen: dict[str, tuple[Split, str]], split: Split, item: Item, problems: Problems) -> None:
    digest = sha256(item.path)
    other, shown = seen.setdefault(digest, (split, item.shown))
    if other != split and shown != item.shown:
        problems.add(
            f"{item.shown}: ({split}) is a copy of {shown} ({other}): a score needs images of its own, remove one"
        )


def _tell_unlabelled(
    labelled: Mapping[Split, Mapping[str, int]], problems: Problems, with_teacher: Collection[str]
) -> None:
    for split, counts in labelled.items():
        for name, count in counts.items():
            if not count and name not in with_teacher:
                problems.add(
                    f"the split {split} has no valid pixel of task {name!r}: check `ignore` or `invalid`, or add labels"
                )


def _open_teachers(root: Path, files: Mapping[str, Path], problems: Problems) -> dict[str, Teacher]:
    """Every task's teacher; one that lies elsewhere, is missing or cannot be used is a problem."""
    found = {}
    for name, path in files.items():
        with problems.collect(), naming(path.relative_to(root).as_posix()):
            if not within(root, path):
                raise UserError(f"is a link that leaves the folder {root.name}: copy the file into it")
            if not path.is_file():
                raise UserError(f"the teacher of task {name!r} is missing: add it, or remove the key `teacher`")
            found[name] = onnx_teacher(path, name)
    return found


def _digest(path: Path, splits: Mapping[Split, list[Item]], sizes: Mapping[str, int], teachers: Iterable[Path]) -> str:
    digest = hashlib.sha256(path.read_bytes())
    for teacher in teachers:
        digest.update(f"\0{sha256(teacher)}".encode())
    for split, items in splits.items():
        names = "\n".join(item.shown for item in items)
        digest.update(f"\0{split}\0{names}".encode())
    for shown in sorted(sizes):
        digest.update(f"\0{shown}\0{sizes[shown]}".encode())
    return digest.hexdigest()
