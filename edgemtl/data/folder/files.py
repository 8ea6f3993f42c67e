"""Which images a folder data set has, which split each is in, and which table row is whose."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edgemtl.data.folder.file_names import Names
from edgemtl.data.folder.labels import Cells, read_table
from edgemtl.data.folder.models import Folders, FolderSpec, Fractions
from edgemtl.data.folder.problems import Problems
from edgemtl.data.sample import SPLITS, Split, require_split
from edgemtl.errors import UserError, naming
from edgemtl.files.images import ENDINGS, ending_refused
from edgemtl.files.names import nfc
from edgemtl.files.paths import inside, within
from edgemtl.tasks import FileSpec, TableSpec

__all__ = ["DEFAULT_FILE", "Item", "list_splits", "match_tables", "spec_path"]

DEFAULT_FILE = "data.yaml"
_OF_A_SYSTEM = ("Thumbs.db", "desktop.ini")
_CALIBRATION_SHARE = 0.05
_CALIBRATION_MOST = 512


@dataclass(frozen=True)
class Item:
    """One image: its file, how errors call it, its name in patterns ({name}), its folder's split ({split})."""

    path: Path
    shown: str
    name: str
    folder: str


def spec_path(path: Path) -> Path:
    """The YAML file itself, or `data.yaml` in a folder; raises `UserError` where neither is there."""
    if path.is_dir():
        if (path / DEFAULT_FILE).exists():
            return inside(path, DEFAULT_FILE, "data set")
        others = sorted(file.name for file in path.glob("*.y*ml"))
        hint = f"give one of its files {', '.join(others[:5])}" if others else "write one, docs/data.md shows how"
        raise UserError(f"the folder {path} has no {DEFAULT_FILE}, which describes a data set: {hint}")
    if not path.is_file():
        raise UserError(
            f"there is no file or folder {path}: give a data set's YAML file or the folder of its {DEFAULT_FILE}"
        )
    return path


def list_splits(root: Path, spec: FolderSpec, problems: Problems) -> dict[Split, list[Item]]:
    """The images of every split, by folder or by share; what is wrong with them goes to `problems`."""
    splits: dict[Split, list[Item]] = {split: [] for split in SPLITS}
    others = {PurePosixPath(file).suffix for file in _label_files(spec)}
    if isinstance(spec.images, Folders):
        for split in SPLITS:
            folder = getattr(spec.images, split)
            if folder is not None:
                splits[split] = _list_images(root, folder, split, others, problems)
        _refuse_shared(splits, problems)
    else:
        for item in _list_images(root, spec.images, "", others, problems):
            splits[_draw_split(item.name, spec.split)].append(item)
    if not splits["calibration"]:
        splits["train"], splits["calibration"] = _set_aside(splits["train"])
    if not problems.count:
        for split in SPLITS:
            if not splits[split]:
                what = (
                    "its folder has none" if isinstance(spec.images, Folders) else "its share of so few images is none"
                )
                problems.add(
                    f"the split {split} has no images ({what}): add images, or give each split a folder of its own"
                )
    return splits


def _label_files(spec: FolderSpec) -> Iterable[str]:
    for task in spec.tasks.values():
        if isinstance(task, FileSpec):
            yield task.files
        elif isinstance(task, TableSpec):
            yield task.csv
        if task.teacher is not None:
            yield task.teacher


def _list_images(root: Path, folder: str, split: str, others: set[str], problems: Problems) -> list[Item]:
    """Every image below a folder, in the order of the names; hidden files are skipped.

    Files of other endings are left out with a warning, but for `others`, those of labels.
    """
    top = Names().find(root, folder)
    if not top.is_dir():
        problems.add("there is no such folder of images: correct `images`", folder)
        return []
    if not within(root, top):
        problems.add(f"is a link that leaves the folder {root.name}: copy the folder into it", folder)
        return []
    items: list[Item] = []
    names: dict[str, str] = {}
    left_out: Counter[str] = Counter()
    for path in sorted(top.rglob("*")):
        inside = path.relative_to(top)
        if path.is_symlink() and path.is_dir():
            problems.add(
                "is a link to a folder: copy the folder, or name it in `images`", path.relative_to(root).as_posix()
            )
        if any(part.startswith(".") for part in inside.parts):
            continue
        if path.suffix.lower() not in ENDINGS:
            if path.suffix not in others and path.name not in _OF_A_SYSTEM and path.is_file():
                left_out[path.suffix.lower()] += 1
            continue
        shown, name = path.relative_to(root).as_posix(), inside.with_suffix("").as_posix()
        if nfc(name) in names:
            text = f"{names[nfc(name)]} has the same name without its ending, so labels fit both: rename one"
            problems.add(text, shown, "the same name")
        elif not within(root, path):
            problems.add(f"is a link that leaves the folder {root.name}: copy the file into it", shown)
        else:
            items.append(Item(path, shown, name, split))
        names[nfc(name)] = shown
    for suffix, count in left_out.items():
        files = "1 file is" if count == 1 else f"{count} files are"
        problems.warn(f"{files} left out: {ending_refused(suffix)}", folder, f"left out {folder} {suffix}")
    return items


def _refuse_shared(splits: Mapping[Split, list[Item]], problems: Problems) -> None:
    home: dict[Path, Split] = {}
    for split, items in splits.items():
        for item in items:
            other = home.setdefault(item.path.resolve(), split)
            if other != split:
                problems.add(f"is in the splits {other} and {split}: a score needs images of its own", item.shown)


def _name_fraction(name: str, salt: str) -> float:
    """A number from 0 to 1 that only the name decides."""
    return int.from_bytes(hashlib.sha256(f"{salt} {name}".encode()).digest()[:8]) / 2**64


def _draw_split(name: str, shares: Fractions) -> Split:
    """The split of an image by its name: adding images never moves others."""
    fraction, last = _name_fraction(nfc(name), "edgemtl split 1"), 0.0
    for split in ("test", "validation", "calibration"):
        last += getattr(shares, split)
        if fraction < last:
            return require_split(split)
    return "train"


def _set_aside(train: list[Item]) -> tuple[list[Item], list[Item]]:
    """A twentieth of the training images (1 to 512) for calibration; a single image serves both."""
    if len(train) < 2:
        return train, train
    count = min(max(1, round(_CALIBRATION_SHARE * len(train))), _CALIBRATION_MOST)
    chosen = {
        item.name for item in sorted(train, key=lambda item: _name_fraction(item.name, "edgemtl calibration 1"))[:count]
    }
    return [item for item in train if item.name not in chosen], [item for item in train if item.name in chosen]


def match_tables(
    root: Path, spec: FolderSpec, splits: Mapping[Split, list[Item]], problems: Problems
) -> dict[str, dict[str, Cells]]:
    """Rows of every table task by image; a table that cannot be read is left out and reported.

    A row may name its image by its path, its file name or its name without ending. A name that fits several images is
    a problem; one that fits none is a warning.
    """
    matched: dict[str, dict[str, Cells]] = {}
    for name, task in spec.tasks.items():
        if not isinstance(task, TableSpec):
            continue
        with problems.collect(), naming(task.csv):
            file = Names().find(root, task.csv)
            if not within(root, file):
                raise UserError(f"is a link that leaves the folder {root.name}: copy the file into it")
            rows = read_table(file, task)
            images: dict[str, list[str]] = defaultdict(list)
            for item in (item for items in splits.values() for item in items):
                if (key := _key_of(item, rows)) is not None and item.shown not in images[key]:
                    images[key].append(item.shown)
            matched[name] = {shown: rows[key] for key, fitting in images.items() for shown in fitting}
            _tell_names(task, rows, images, problems)
    return matched


def _key_of(item: Item, rows: Mapping[str, Cells]) -> str | None:
    """Key of an image in the table: the most specific of its names that is present."""
    keys = (item.shown, item.name + item.path.suffix, item.name, item.path.name)
    return next((key for key in map(nfc, keys) if key in rows), None)


def _tell_names(
    task: TableSpec, rows: Mapping[str, Cells], images: Mapping[str, list[str]], problems: Problems
) -> None:
    for key, fitting in images.items():
        if len(fitting) > 1:
            text = f"the name {key!r} fits {len(fitting)} images, {fitting[0]} and {fitting[1]}: write their paths in"
            problems.add(f"{text} the column {task.image!r}", task.csv, f"{task.csv}: fits several images")
    for key in rows:
        if key not in images:
            text = f"no image is called {key!r}: correct the column {task.image!r}, or remove the row"
            problems.warn(text, task.csv, f"{task.csv}: fits no image")
