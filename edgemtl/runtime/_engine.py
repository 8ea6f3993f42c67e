"""A bundle, opened: images in, predictions of any subset of its tasks out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl._images import normalize, read_picture, resize_picture
from edgemtl.bundle import BundleLevel, Manifest, read_manifest
from edgemtl.errors import UserError, naming, unknown_name
from edgemtl.runtime._levels import pick_level
from edgemtl.runtime._open import open_engine
from edgemtl.runtime._postprocess import postprocess
from edgemtl.runtime._session import CLOSED, Session
from edgemtl.tasks import Task, check_tasks

__all__ = ["Engine", "load_image", "prepare_image"]

ImageLike = NDArray[Any] | Path | str
OPEN_LEVELS = 8


class Engine:
    """A bundle's engine for one target (its first by default), with that many CPU threads (0: the runtime's choice).

    `run` and `predict` answer the tasks they are given; without any, the active ones: all, until `switch` sets others.
    A bundle of several levels opens at its first one; at most `open_levels` of them stay open, those used last.

    Wherever tasks are given, a string is the name of one. Not thread-safe. Opening verifies every hash of the bundle;
    raises `UserError` for an unknown target or a damaged bundle. Use it in a `with` statement, or call `close`: then
    everything but another `close` is a `UserError`. An engine that is dropped frees what it holds as well.
    """

    def __init__(
        self, bundle: Path | str, target: str | None = None, threads: int = 0, open_levels: int = OPEN_LEVELS
    ) -> None:
        if open_levels < 1:
            raise UserError(f"{open_levels} open levels given: give 1 or more")
        folder = self.folder = Path(bundle)
        self.manifest: Manifest = read_manifest(folder)
        if self.manifest.layout != "bundle":
            raise UserError(
                f"bundle {folder} has the layout {self.manifest.layout}: its files are for their runtimes alone, as "
                "README.md in it says; export the run without --layout for edgemtl"
            )
        self.target = target or next(iter(self.manifest.targets))
        if self.target not in self.manifest.targets:
            raise unknown_name(f"target in bundle {folder}:", self.target, self.manifest.targets)
        self.tasks: tuple[Task, ...] = tuple(task.task() for task in self.manifest.tasks)
        self._active = tuple(task.name for task in self.tasks)
        self._open_levels = open_levels
        self._engines, self._threads = folder / self.manifest.targets[self.target].folder, threads
        self.session: Session = open_engine(self._engines, threads)
        self._sessions = {0: self.session}  # the one that was used last stands last; none once it was closed

    @property
    def active(self) -> tuple[str, ...]:
        """Names of the tasks that `run` and `predict` answer where none are given."""
        return self._active

    def switch(self, tasks: str | Sequence[str]) -> tuple[str, ...]:
        """Make `tasks` the active ones, for calls that name none; returns those that were.

        Every subset of the tasks is ready: a switch loads nothing and allocates nothing. Raises `UserError` for an
        unknown task or for none, and then leaves the active ones as they are.
        """
        self._check_open()
        previous = self._active
        self._active = check_tasks(tasks, [task.name for task in self.tasks])
        return previous

    def set_level(self, *, budget: str | None = None, prefer: str | Mapping[str, float] | None = None) -> BundleLevel:
        """Go on with another level: no retraining, no download; the level that was picked.

        Of the levels that keep `budget` (in FLOPs, MACs or bytes of weights; none: any), the one whose preference is
        nearest to `prefer`, "depth=2,semseg=1" or weights by task (none: the first level's); of equals the largest. A
        level is opened at its first use, and where that makes too many, the one that was used longest ago is closed.
        Raises `UserError` for an unknown task, all zero weights, a budget that no level keeps, and a bundle of one
        level; the engine then stays at its level.
        """
        self._check_open()
        number = pick_level(self.manifest, budget, prefer)
        session = self._sessions.pop(number, None) or open_engine(self._engines, self._threads, level=number)
        self.session = self._sessions[number] = session
        while len(self._sessions) > self._open_levels:
            self._sessions.pop(next(iter(self._sessions))).close()
        return self.manifest.levels[number]

    def run(self, image: ImageLike, tasks: str | Sequence[str] | None = None) -> dict[str, NDArray[np.float32]]:
        """Raw outputs of `tasks` (by default the active ones) by name, (1, C, H, W) or (1, C); arrays are the caller's.

        `image` is a file, uint8 (H, W, 3) of any size (it is resized to the net's input), or a float32 array
        (1, 3, H, W) that is normalised already. Raises `UserError` for anything else and for an unknown task.
        """
        self._check_open()
        size = (self.manifest.input.height, self.manifest.input.width)
        wanted = self._active if tasks is None else tasks
        found = self.session.run(prepare_image(image, size), wanted)
        return {task: value.copy() for task, value in found.items()}

    def predict(self, image: ImageLike, tasks: str | Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
        """What `run` gives, post-processed, at the net's size: classes, metres, unit vectors, probabilities."""
        steps = {task.name: task.postprocess for task in self.tasks}
        return {task: postprocess(steps[task], value) for task, value in self.run(image, tasks).items()}

    def close(self) -> None:
        """Free the engine, every level that was opened included; a second time does nothing."""
        while self._sessions:
            self._sessions.popitem()[1].close()

    def _check_open(self) -> None:
        if not self._sessions:
            raise UserError(CLOSED)

    def __enter__(self) -> Engine:
        self._check_open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def load_image(path: Path | str) -> NDArray[np.uint8]:
    """A picture file as uint8 (H, W, 3), upright as its camera noted, as training reads it; raises `UserError`."""
    with naming(path):
        return read_picture(Path(path))


def prepare_image(image: ImageLike, size: tuple[int, int]) -> NDArray[np.float32]:
    """An image as a net of input size (H, W) reads it, in training too: resized, scaled, normalised."""
    pixels = load_image(image) if isinstance(image, (str, Path)) else image
    if pixels.dtype == np.float32 and pixels.ndim == 4:
        return np.asarray(pixels, np.float32)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or not pixels.size:
        raise UserError(
            f"image of shape {pixels.shape} and type {pixels.dtype} given: a file, uint8 (H, W, 3) or normalised "
            "float32 (1, 3, H, W) is wanted"
        )
    return normalize(resize_picture(pixels, size)[None])
