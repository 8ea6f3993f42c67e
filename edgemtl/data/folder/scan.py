"""Opening a user's own data set: every file's name and header is read, no file is read whole."""

from __future__ import annotations

import difflib
import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgemtl.data.folder.data import FolderData
from edgemtl.data.folder.files import Item, list_splits, match_tables
from edgemtl.data.folder.labels import check_header
from edgemtl.data.folder.problems import Problems
from edgemtl.data.folder.spec import read_spec
from edgemtl.data.pictures import read_header
from edgemtl.data.sample import SPLITS, Split
from edgemtl.data.teachers import Teacher, onnx_teacher
from edgemtl.errors import UserError, naming
from edgemtl.files.images import open_picture
from edgemtl.files.names import nfc
from edgemtl.files.paths import within
from edgemtl.files.seals import sha256
from edgemtl.tasks import FileSpec, Task, TaskSpec, make_task

__all__ = ["OpenFolder", "open_folder"]


@dataclass(frozen=True)
class OpenFolder:
    """A data set as its file names and headers describe it.

    `unusable` holds the images (under "") and labels (by task) with problems, which were reported.
    """

    path: Path
    data: FolderData
    splits: Mapping[Split, list[Item]]
    sizes_bytes: dict[str, int]
    teachers: tuple[Path, ...]
    unusable: set[tuple[str, str]]

    def usable(self, item: Item, task: str = "") -> bool:
        """Whether an image, or its label of a task, can be read, judged by its header."""
        read = not task or isinstance(self.data.specs[task], FileSpec) or task in self.data.rows
        return read and (task, item.shown) not in self.unusable

    def digest(self) -> str:
        """Hash of the YAML file, the teachers, and every file's name and number of bytes."""
        digest = hashlib.sha256(self.path.read_bytes())
        for teacher in self.teachers:
            digest.update(f"\0{sha256(teacher)}".encode())
        for split, items in self.splits.items():
            names = "\n".join(item.shown for item in items)
            digest.update(f"\0{split}\0{names}".encode())
        for shown in sorted(self.sizes_bytes):
            digest.update(f"\0{shown}\0{self.sizes_bytes[shown]}".encode())
        return digest.hexdigest()


def open_folder(path: Path, size: tuple[int, int], problems: Problems) -> OpenFolder:
    """The data set that a YAML file describes; what is wrong with its files goes to `problems`.

    Raises `UserError` where the YAML file itself cannot be used.
    """
    spec, root = read_spec(path), path.resolve().parent
    splits = list_splits(root, spec, problems)
    files = {name: root / task.teacher for name, task in spec.tasks.items() if task.teacher is not None}
    tasks = tuple(_task(name, task) for name, task in spec.tasks.items())
    teachers = _open_teachers(root, tasks, files, problems)
    data = FolderData(root, spec.tasks, match_tables(root, spec, splits, problems), size, tasks, teachers)
    opened = OpenFolder(path, data, splits, {}, tuple(files.values()), set())
    _look_for_folders(opened, problems)
    _refuse_shared_labels(opened, problems)
    _scan(opened, problems)
    return opened


def _task(name: str, spec: TaskSpec) -> Task:
    return make_task(name, spec.kind, spec.channels, spec.class_names)


def _look_for_folders(opened: OpenFolder, problems: Problems) -> None:
    """A missing folder of labels is reported once, not for every image."""
    data = opened.data
    for name, spec in data.specs.items():
        images: dict[str, list[Item]] = defaultdict(list)
        for item in (item for items in opened.splits.values() for item in items):
            if isinstance(spec, FileSpec) and (gone := _missing(data, _label_folder(spec, item.folder))):
                images[gone].append(item)
        for folder, items in images.items():
            _tell_folder(data, folder, f"task {name!r} has the labels of {len(items)} images", spec, problems)
            if spec.teacher is None:
                opened.unusable.update((name, item.shown) for item in items)


def _label_folder(spec: FileSpec, split: str) -> str:
    """The part of a pattern that is a folder whatever the image; empty where the labels lie at the top."""
    return spec.files.partition("{name}")[0].rpartition("/")[0].replace("{split}", split)


def _missing(data: FolderData, folder: str) -> str:
    """The first part of a path that is not there; empty where all of it is."""
    parts = PurePosixPath(folder).parts
    paths = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    return next((path for path in paths if not data.names.find(data.root, path).is_dir()), "")


def _tell_folder(data: FolderData, folder: str, what: str, spec: TaskSpec, problems: Problems) -> None:
    """Report a missing folder as a problem; with a teacher, only if a folder of a similar name exists."""
    name, near = PurePosixPath(folder).name, _near_folder(data.names.find(data.root, folder))
    hint = "correct `files`, or add the labels" if near is None else f"did you mean {near}? correct `files`"
    if near is not None and name in SPLITS:
        hint = f"did you mean {near}? {{split}} is {name} whatever the folder of images is called: rename it to {name}"
    text = f"there is no such folder, in which {what}"
    if spec.teacher is None:
        problems.add(f"{text}: {hint}", folder, f"{what} {folder}")
    elif near is not None:
        problems.warn(f"{text}, so that its teacher labels them: {hint}", folder, f"{what} {folder}")


def _near_folder(path: Path) -> str | None:
    """A folder next to the missing one, with a similar name."""
    there, wanted = sorted(nfc(other.name) for other in path.parent.iterdir() if other.is_dir()), nfc(path.name)
    short = [name for name in there if wanted.startswith(name) or name.startswith(wanted)]
    near = short or difflib.get_close_matches(wanted, there, n=1, cutoff=0.6)
    return near[0] if near else None


def _refuse_shared_labels(opened: OpenFolder, problems: Problems) -> None:
    """Images of the same name in two splits share a label file where its pattern does not say {split}."""
    for name, spec in opened.data.specs.items():
        first: dict[str, str] = {}
        for item in (item for items in opened.splits.values() for item in items):
            if not isinstance(spec, FileSpec) or not opened.usable(item, name):
                continue
            with problems.collect():
                path, shown = opened.data.label_file(spec, item)
                other = first.setdefault(shown, item.shown)
                if other != item.shown and path.exists():
                    text = f"is the label of {other} and of {item.shown}: give each its own, with {{split}} in `files`"
                    problems.add(text, shown, f"shared labels {name}")


def _scan(opened: OpenFolder, problems: Problems) -> None:
    """Look at every file's header, and note its number of bytes."""
    data, sizes, safe = opened.data, opened.sizes_bytes, dict[Path, bool]()
    for split, items in opened.splits.items():
        there = dict.fromkeys(data.specs, 0)
        for item in items:
            size = _look_at_image(data, item, sizes, problems)
            if size is None:
                opened.unusable.add(("", item.shown))
            for name in data.specs:
                there[name] += 1
                if opened.usable(item, name):
                    opened.unusable.add((name, item.shown))
                    with problems.collect():
                        there[name] -= not _look_at_label(data, name, item, size, safe, sizes)
                        opened.unusable.remove((name, item.shown))
        _tell_absent(data, split, there, problems)


def _look_at_image(data: FolderData, item: Item, sizes: dict[str, int], problems: Problems) -> tuple[int, int] | None:
    """The image's size from its header; an unusable header is a problem, and the size is then unknown."""
    size: tuple[int, int] | None = None
    with problems.collect(), naming(item.shown), open_picture(item.path) as picture:
        sizes[item.shown] = item.path.stat().st_size
        data.check_image(picture)
        size = picture.height, picture.width
    return size


def _look_at_label(
    data: FolderData, name: str, item: Item, size: tuple[int, int] | None, safe: dict[Path, bool], sizes: dict[str, int]
) -> bool:
    """Whether the label is there; raises where it is missing and must not, lies elsewhere, or does not fit."""
    spec = data.specs[name]
    if not isinstance(spec, FileSpec):
        return bool(data.target(name, item, (0, 0))[1].any())
    path, shown = data.label_file(spec, item)
    if not path.exists() and spec.may_lack:
        return False
    with naming(shown):
        if path.parent not in safe:
            safe[path.parent] = within(data.root, path.parent)
        if not safe[path.parent] or (path.is_symlink() and not within(data.root, path)):
            raise UserError(f"is a link that leaves the folder {data.root.name}: copy the file into it")
        if not path.is_file():
            raise UserError(f"the label of task {name!r} is missing: add it, or set `partial: true` for the task")
        header = read_header(path)
        check_header(spec, header, size or (header.height, header.width), path.suffix == ".npy")
        sizes[shown] = path.stat().st_size
    return True


def _tell_absent(data: FolderData, split: Split, there: Mapping[str, int], problems: Problems) -> None:
    for name, count in there.items():
        spec = data.specs[name]
        if not count and spec.partial and spec.teacher is None:
            problems.add(f"the split {split} has no label of task {name!r} at all: add some, or remove the task")


def _open_teachers(
    root: Path, tasks: Iterable[Task], files: Mapping[str, Path], problems: Problems
) -> dict[str, Teacher]:
    """Every task's teacher; one that lies elsewhere, is missing or cannot be used is a problem."""
    teachers, declared = {}, {task.name: task for task in tasks}
    for name, path in files.items():
        with problems.collect(), naming(path.relative_to(root).as_posix()):
            if not within(root, path):
                raise UserError(f"is a link that leaves the folder {root.name}: copy the file into it")
            if not path.is_file():
                raise UserError(f"the teacher of task {name!r} is missing: add it, or remove the key `teacher`")
            teachers[name] = onnx_teacher(path, declared[name])
    return teachers
