"""The source `scenes`: rendered rooms with exact labels for four tasks, cached on disk as they are read."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.data.cache import RowCache
from edgemtl.data.sample import Sample, Samples, Split, require_split
from edgemtl.data.scenes.rendering import render
from edgemtl.data.scenes.types import CLASSES
from edgemtl.errors import UserError
from edgemtl.files.cache import cache_root
from edgemtl.progress import Progress, Report, silent
from edgemtl.signals import end_with_parent
from edgemtl.tasks import Task, make_task

__all__ = ["SCENES_TASKS", "ScenesSource"]

SCENES_TASKS: tuple[Task, ...] = (
    make_task("semseg", "segmentation", classes=CLASSES),
    make_task("depth", "depth"),
    make_task("normals", "normals"),
    make_task("edges", "edges"),
)
_FIRST_SEED: dict[Split, int] = {"train": 0, "calibration": 1_000_000, "validation": 2_000_000, "test": 3_000_000}
_MOST = 1_000_000
_TASK_ROWS = 8
RENDERER_VERSION = "0076015746b0"
"""Version of the renderer: it changes with every pixel or label, so that frames of two versions are never mixed."""


class ScenesSource:
    """Rendered rooms: segmentation, depth, normals and edges, every pixel valid.

    Every image has its own seed; the splits take theirs from ranges that never meet. Frames are rendered once and kept
    under `$EDGEMTL_CACHE` (else `~/.cache/edgemtl`), about 10 bytes a pixel: when first read, or ahead of time by
    `prepare`. The cache belongs to one version of the renderer; a new version starts a new one.
    """

    name = "scenes"
    license_note = ""
    tasks = SCENES_TASKS

    def __init__(
        self, size: tuple[int, int], train: int = 8192, calibration: int = 128, validation: int = 192, test: int = 384
    ) -> None:
        """`size` is (height, width), 8 to 4096 each; the rest are numbers of images, at most a million each.

        Raises `UserError` for numbers outside these ranges.
        """
        if not all(8 <= side <= 4096 for side in size):
            raise UserError(
                f"scenes cannot be rendered at {size[0]} x {size[1]} pixels: height and width go from 8 to 4096"
            )
        self.size = size
        self.counts: dict[Split, int] = {
            "train": train,
            "calibration": calibration,
            "validation": validation,
            "test": test,
        }
        for split, count in self.counts.items():
            if not 1 <= count <= _MOST:
                raise UserError(f"scenes cannot have {count} {split} images: allowed are 1 to {_MOST}")

    @property
    def fingerprint(self) -> str:
        """Hash of the renderer's version, the size and the numbers of images."""
        return hashlib.sha256(repr((RENDERER_VERSION, self.size, self.counts)).encode()).hexdigest()[:16]

    def split(self, name: Split) -> Sequence[Sample]:
        """Samples of one split, rendered when first read; raises `UserError` for an unknown split."""
        split = require_split(name)
        return _ScenesSplit(_rows(split, self.size), _FIRST_SEED[split], self.counts[split])

    def is_prepared(self, split: Split) -> bool:
        """Whether every image of a split is rendered, as where another process called `prepare`."""
        rows = _rows(require_split(split), self.size)
        return all(rows.claimed(index) for index in range(self.counts[split]))

    def prepare(self, split: Split, workers: int = 1, report: Report = silent) -> None:
        """Render what the cache lacks of a split in `workers` processes; `report` gets the number of images done.

        It can be interrupted (Ctrl-C) and called again: rendered images stay. Raises `UserError` where the disk lacks
        the space or the cache cannot be written.
        """
        rows, first, total = _rows(require_split(split), self.size), _FIRST_SEED[split], self.counts[split]
        missing = [index for index in range(total) if not rows.claimed(index)]
        _check_space(rows, len(missing))
        done = total - len(missing)
        report(Progress(f"{split} images", done, total))
        parts = [missing[start : start + _TASK_ROWS] for start in range(0, len(missing), _TASK_ROWS)]
        for count in _fill_all(rows, first, parts, workers):
            done += count
            report(Progress(f"{split} images", done, total))


class _ScenesSplit(Samples):
    """One split: reads rows of the cache and renders those that are missing."""

    def __init__(self, rows: RowCache, first_seed: int, count: int) -> None:
        self._rows, self._first, self._count = rows, first_seed, count
        height, width = rows.fields["semseg"][0]
        self._valid = np.ones((height, width), np.bool_)
        self._valid.flags.writeable = False

    def __len__(self) -> int:
        return self._count

    def read(self, position: int) -> Sample:
        row = self._rows.read(position)
        if row is None:
            _fill(self._rows, self._first, [position])
            row = self._rows.read(position)
            if row is None:
                raise UserError(
                    f"the cache {self._rows.folder} loses what is written to it: set EDGEMTL_CACHE to another folder"
                )
        return _sample(row, self._valid)


def _sample(row: dict[str, NDArray[Any]], valid: NDArray[np.bool_]) -> Sample:
    normals = row["normals"].astype(np.float32)
    length = normals[..., 0] ** 2
    length += normals[..., 1] ** 2
    length += normals[..., 2] ** 2
    normals *= (1 / np.sqrt(length))[..., None]
    targets: dict[str, NDArray[Any]] = {
        "semseg": row["semseg"].astype(np.int64),
        "depth": row["depth"].astype(np.float32),
        "normals": normals,
        "edges": row["edges"].astype(np.float32),
    }
    return Sample(np.array(row["rgb"]), targets, dict.fromkeys(targets, valid))


def _rows(split: Split, size: tuple[int, int]) -> RowCache:
    height, width = size
    fields: dict[str, tuple[tuple[int, ...], str]] = {
        "rgb": ((height, width, 3), "|u1"),
        "semseg": ((height, width), "|u1"),
        "depth": ((height, width), "<f2"),
        "normals": ((height, width, 3), "|i1"),
        "edges": ((height, width), "|u1"),
    }
    return RowCache(cache_root() / f"scenes-{RENDERER_VERSION}" / f"{height}x{width}" / split, fields)


def _fill(rows: RowCache, first_seed: int, indices: Sequence[int]) -> int:
    """Render and write rows; returns their number."""
    height, width = rows.fields["semseg"][0]
    for index in indices:
        frame = render(first_seed + index, height, width)
        normals = np.rint(frame.normals * 127)
        row: dict[str, NDArray[Any]] = {
            "rgb": frame.rgb,
            "semseg": frame.semseg,
            "depth": frame.depth,
            "normals": normals,
            "edges": frame.edges,
        }
        rows.write(index, row)
    return len(indices)


def _check_space(rows: RowCache, missing: int) -> None:
    """Raise `UserError` before the first image is rendered if the disk cannot hold all of them."""
    folder = rows.folder
    try:
        rows.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise rows.refused(error) from error
    needed = missing * rows.row_bytes
    if needed > free:
        raise UserError(
            f"the cache {folder} needs {_amount(needed)} more for {missing} images, {_amount(free)} are free: "
            "free space there, set EDGEMTL_CACHE to another folder, or ask for fewer images"
        )


def _amount(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _fill_all(rows: RowCache, first_seed: int, parts: Sequence[Sequence[int]], workers: int) -> Iterable[int]:
    """Fill the parts, here or in processes, and yield the number of rows of each."""
    if workers <= 1 or len(parts) <= 1:
        for part in parts:
            yield _fill(rows, first_seed, part)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _leave_signals, (os.getpid(),))
    try:
        waiting = iter(parts)
        running = {pool.submit(_fill, rows, first_seed, part) for part in islice(waiting, 2 * workers)}
        while running:
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            for future in finished:
                yield future.result()
                running |= {pool.submit(_fill, rows, first_seed, part) for part in islice(waiting, 1)}
    except BrokenProcessPool as error:
        raise UserError(
            f"a process that rendered scenes ended ({error}): in a script, call prepare under "
            "`if __name__ == '__main__':`, or use workers=1; what was rendered is kept"
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _leave_signals(parent: int) -> None:
    """Ctrl-C reaches all processes of a terminal: the parent ends the workers, each after its current image.

    If the parent is killed, they end with it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent(parent)
