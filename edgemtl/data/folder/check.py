"""Checking a user's own data set: every file is read, everything is counted, and mistakes are reported."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from edgemtl.data.folder.files import Item, spec_path
from edgemtl.data.folder.problems import Finding, Problems
from edgemtl.data.folder.scan import OpenFolder, open_folder
from edgemtl.data.sample import SPLITS, Split
from edgemtl.errors import naming
from edgemtl.files.seals import sha256
from edgemtl.progress import Progress, Report, silent
from edgemtl.tasks import FileSpec, Target, TaskSpec

__all__ = ["QUICK_IMAGES", "CheckReport", "check_contents", "check_folder", "check_some_labels"]

QUICK_IMAGES = 64
_QUICK_SECONDS = 3.0
_ANY_SIZE = (64, 64)


@dataclass(frozen=True)
class CheckReport:
    """Result of a check, by split: images, and of each task the share of images with a valid label.

    `classes` counts pixels of each class, or images where a task has one value an image; edges and saliency have the
    classes "0" and "1". `ranges` are the smallest and largest valid values of depth (metres) and regression. With a
    problem the data set cannot be used; a warning may be meant so.
    """

    images: dict[Split, int]
    labelled: dict[Split, dict[str, float]]
    classes: dict[Split, dict[str, dict[str, int]]]
    ranges: dict[Split, dict[str, tuple[float, float]]]
    problems: tuple[Finding, ...] = ()
    warnings: tuple[Finding, ...] = ()


@dataclass
class _Tally:
    """Counts over the labels of one task in one split; `failed` are those that could not be read."""

    labelled: int = 0
    failed: int = 0
    pixels: int = 0
    ignored: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    low: float = np.inf
    high: float = -np.inf

    def add(self, spec: TaskSpec, target: Target) -> None:
        values, mask = target
        valid = values[mask]
        self.labelled += bool(mask.any())
        self.pixels += mask.size
        self.ignored += mask.size - int(mask.sum())
        if names := spec.counted:
            numbers = np.bincount(valid.astype(np.int64).ravel(), minlength=len(names))
            for name, number in zip(names, numbers.tolist(), strict=True):
                self.counts[name] = self.counts.get(name, 0) + number
        elif valid.size and spec.measured:
            self.low, self.high = min(self.low, float(valid.min())), max(self.high, float(valid.max()))


def check_folder(path: Path | str, report: Report = silent) -> CheckReport:
    """Check a data set that need not be usable: `path` is a YAML file or the folder of its data.yaml.

    Every file is read; `report` gets their number. The result holds every problem and warning. Raises
    `UserError` where no YAML file describes a data set.
    """
    path = spec_path(Path(path).expanduser())
    problems = Problems(f"data set {path}")
    return check_contents(open_folder(path, _ANY_SIZE, problems), problems, report)


def check_contents(opened: OpenFolder, problems: Problems, report: Report) -> CheckReport:
    """Read every file of an opened data set; what is wrong goes to `problems` and into the report."""
    tallies, total, done = _tallies(opened), sum(map(len, opened.splits.values())), 0
    seen: dict[str, tuple[Split, str]] = {}
    for split, items in opened.splits.items():
        for item in items:
            if opened.usable(item):
                with problems.collect():
                    opened.data.pixels(item)
                    _note_copy(seen, split, item, problems)
            _count(opened, item, tallies[split], problems)
            done += 1
            report(Progress("images", done, total))
        for name, tally in tallies[split].items():
            _tell_labels(opened.data.specs[name], name, split, tally, f"the split {split}", problems)
    return _report(opened, tallies, problems)


def check_some_labels(opened: OpenFolder, problems: Problems, images: int = QUICK_IMAGES) -> None:
    """Read the labels of so many images of every split, for 3 seconds at most: a first look before training.

    Classes missing from a part of a split are a warning, not a problem.
    """
    tallies = _tallies(opened)
    for split, items in opened.splits.items():
        some, begun = list[Item](), time.monotonic()
        for item in _subsample(items, images):
            if time.monotonic() - begun < _QUICK_SECONDS:
                _count(opened, item, tallies[split], problems)
                some.append(item)
        for name, tally in tallies[split].items():
            spec = opened.data.specs[name]
            if len(some) == len(items):
                _tell_labels(spec, name, split, tally, f"the split {split}", problems)
            elif sum(map(bool, tally.counts.values())) == 1:
                where = f"the split {split} ({len(some)} of {len(items)} images were looked at)"
                _tell_classes(spec, name, where, tally, problems)


def _subsample(items: Sequence[Item], most: int) -> Sequence[Item]:
    """Some items from all over, in an order of which every part is from all over too."""
    count = min(len(items), most)
    positions = sorted(range(count), key=lambda position: (position % 8, position))
    return [items[position * len(items) // count] for position in positions]


def _tallies(opened: OpenFolder) -> dict[Split, dict[str, _Tally]]:
    return {split: {name: _Tally() for name in opened.data.specs} for split in SPLITS}


def _count(opened: OpenFolder, item: Item, tallies: Mapping[str, _Tally], problems: Problems) -> None:
    """Read an image's labels and count what they hold; not files that no size of an image could be compared with."""
    for name, tally in tallies.items():
        tally.failed += 1
        sized = opened.usable(item) or not isinstance(opened.data.specs[name], FileSpec)
        if sized and opened.usable(item, name):
            with problems.collect():
                target = _target(opened, name, item, problems)
                if target is not None:
                    tally.add(opened.data.specs[name], target)
                tally.failed -= 1


def _target(opened: OpenFolder, name: str, item: Item, problems: Problems) -> Target | None:
    data, spec = opened.data, opened.data.specs[name]
    if not isinstance(spec, FileSpec):
        return data.target(name, item, (0, 0))
    array = data.label(spec, item)
    if array is None:
        return None
    shown = data.label_file(spec, item)[1]
    with naming(shown):
        target = spec.decode(array)
    if doubts := spec.doubts(array, target):
        problems.warn(doubts, shown)
    return target


def _note_copy(seen: dict[str, tuple[Split, str]], split: Split, item: Item, problems: Problems) -> None:
    other, shown = seen.setdefault(sha256(item.path), (split, item.shown))
    if other != split and shown != item.shown:
        text = f"({split}) is a copy of {shown} ({other}): a score needs images of its own, remove one"
        problems.add(text, item.shown, "a copy")


def _tell_labels(spec: TaskSpec, name: str, split: Split, tally: _Tally, where: str, problems: Problems) -> None:
    """Report problems that all labels of a split show together; none if some could not be read."""
    if tally.failed or spec.teacher is not None:
        return
    if not tally.labelled:
        problems.add(f"{where} has no valid pixel of task {name!r}: check `ignore` or `invalid`, or add labels")
        return
    there = [known for known, count in tally.counts.items() if count]
    if split == "train" and len(there) == 1:
        _tell_only_class(spec, name, where, tally, there[0], problems)
    elif split != "calibration":
        _tell_classes(spec, name, where, tally, problems)


def _tell_classes(spec: TaskSpec, name: str, where: str, tally: _Tally, problems: Problems) -> None:
    if lacking := _lacking(spec, name, where, tally):
        problems.warn(f"{lacking}: add images of it, correct its labels, or leave the class out")


def _tell_only_class(spec: TaskSpec, name: str, where: str, tally: _Tally, known: str, problems: Problems) -> None:
    remedy = spec.single_class_remedy(ignored=tally.ignored > 0)
    lacking = _lacking(spec, name, where, tally)
    problems.add(f"{lacking}: all that is valid is {known!r}, so that there is nothing to learn; {remedy}")


def _lacking(spec: TaskSpec, name: str, where: str, tally: _Tally) -> str:
    """Which classes a split lacks, and what share of it is ignored; nothing where it has them all."""
    lacking = [repr(known) for known, count in tally.counts.items() if not count]
    if not lacking:
        return ""
    shown = ", ".join(lacking[:5]) + (f" and {len(lacking) - 5} more" if len(lacking) > 5 else "")
    ignored = ""
    if tally.ignored and (value := spec.ignored_value()):
        ignored = f" ({tally.ignored / tally.pixels:.0%} of the pixels hold {value}, which is taken as `ignore`)"
    return f"{where} has no {spec.unit} of class {shown} of task {name!r}{ignored}"


def _report(opened: OpenFolder, tallies: Mapping[Split, Mapping[str, _Tally]], problems: Problems) -> CheckReport:
    labelled, classes, ranges = {}, {}, {}
    for split, by_task in tallies.items():
        count = max(1, len(opened.splits[split]))
        labelled[split] = {name: tally.labelled / count for name, tally in by_task.items()}
        classes[split] = {name: dict(tally.counts) for name, tally in by_task.items() if tally.counts}
        ranges[split] = {name: (tally.low, tally.high) for name, tally in by_task.items() if tally.low <= tally.high}
    images = {split: len(items) for split, items in opened.splits.items()}
    return CheckReport(images, labelled, classes, ranges, problems.problems, problems.warnings)
