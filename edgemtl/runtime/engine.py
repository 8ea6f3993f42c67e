"""A bundle, opened: images in, predictions of any subset of its tasks out."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgemtl.bundle import BundleInput, BundleLevel, Manifest, read_manifest
from edgemtl.errors import UserError, naming, unknown_name
from edgemtl.files.images import normalize, picture_pixels, read_picture, resize_picture
from edgemtl.runtime.levels import pick_level
from edgemtl.runtime.opening import open_engine
from edgemtl.runtime.session import CLOSED, Outputs, Session
from edgemtl.tasks import Task, check_tasks, kind_of, map_outputs

__all__ = ["Engine", "load_image", "prepare_image", "read_bundle"]

ImageLike = NDArray[Any] | Image.Image | os.PathLike[str] | str
OPEN_LEVELS = 8


class Engine:
    """A bundle's engine for one target (its first by default), with that many CPU threads (0: the runtime's choice).

    `run` and `predict` run the tasks they are given; without any, the active ones: all, until `switch` sets others.
    A bundle of several levels opens at its first one; at most `open_levels` of them stay open, those used last.

    Wherever tasks are given, a string is the name of one. Not thread-safe. Opening verifies every hash of the bundle;
    raises `UserError` for an unknown target or a damaged bundle. Use it in a `with` statement, or call `close`: then
    everything but another `close` is a `UserError`. An engine that is dropped frees what it holds as well.

    >>> with Engine("runs/first/bundle") as engine:
    ...     depth = engine.predict("photo.jpg", "depth")["depth"]
    ...     before = engine.switch(["depth", "semseg"])
    ...     sorted(engine.predict("photo.jpg"))
    ['depth', 'semseg']
    >>> bool(depth.min() > 0)
    True
    """

    def __init__(
        self, bundle: Path | str, target: str | None = None, threads: int = 0, open_levels: int = OPEN_LEVELS
    ) -> None:
        if open_levels < 1:
            raise UserError(f"{open_levels} open levels given: give 1 or more")
        folder = self.folder = Path(bundle)
        self.manifest, self.target = read_bundle(folder, target)
        self.tasks: tuple[Task, ...] = tuple(task.task() for task in self.manifest.tasks)
        self._active = tuple(task.name for task in self.tasks)
        self._open_levels = open_levels
        self._engines, self._threads = folder / self.manifest.targets[self.target].folder, threads
        self.session: Session = open_engine(self._engines, threads)
        self._sessions = {0: self.session}  # in order of use, the latest last; empty once closed

    @property
    def active(self) -> tuple[str, ...]:
        """Names of the tasks that `run` and `predict` run by default."""
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

    def run(self, image: ImageLike, tasks: str | Sequence[str] | None = None) -> Outputs:
        """Raw outputs of `tasks` (by default the active ones), by task and name, (1, C, H, W) or (1, C); the caller's.

        `image` is a file, a PIL image or uint8 (H, W, 3) of any size (it is resized to the net's input), or float32
        (1, 3, H, W) that is normalised already: see `prepare_image`. Raises `UserError` for anything else and for an
        unknown task.
        """
        self._check_open()
        about, wanted = self.manifest.input, self._active if tasks is None else tasks
        prepared = prepare_image(image, (about.height, about.width), about)
        return map_outputs(np.copy, self.session.run(prepared, wanted))

    def predict(self, image: ImageLike, tasks: str | Sequence[str] | None = None) -> dict[str, Any]:
        """Outputs of `run`, decoded: classes, metres, unit vectors, probabilities, points (see `edgemtl.tasks.Kind`).

        Maps have the net's size; coordinates are in pixels of `image` as it was given.
        """
        self._check_open()
        array = image if _is_tensor(image) else _pixels(image)
        size = (array.shape[2], array.shape[3]) if array.ndim == 4 else (array.shape[0], array.shape[1])
        declared = {task.name: task for task in self.tasks}
        return {
            name: kind_of(declared[name]).decode(declared[name], outputs, size)
            for name, outputs in self.run(array, tasks).items()
        }

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


def read_bundle(folder: Path, target: str | None = None) -> tuple[Manifest, str]:
    """The verified manifest of a bundle, and which of its targets to open: `target`, or its first.

    Raises `UserError` for an unknown target, a damaged bundle, and one that edgemtl does not open.
    """
    manifest = read_manifest(folder)
    if manifest.layout != "bundle":
        raise UserError(
            f"bundle {folder} has the layout {manifest.layout}: its files are for their runtimes alone; "
            "name an ONNX file in it to profile that, or export the run without --layout"
        )
    target = target or next(iter(manifest.targets))
    if target not in manifest.targets:
        raise unknown_name(f"target in bundle {folder}:", target, manifest.targets)
    return manifest, target


def load_image(path: os.PathLike[str] | str) -> NDArray[np.uint8]:
    """A picture file as uint8 (H, W, 3), upright as its camera noted, as training reads it; raises `UserError`."""
    with naming(path):
        return read_picture(Path(os.fsdecode(path)))


def prepare_image(image: ImageLike, size: tuple[int, int], about: BundleInput | None = None) -> NDArray[np.float32]:
    """An image as a net of input size (H, W) reads it, in training too: resized, scaled, normalised.

    `about` says how a net of one's own has its values (None: as those that edgemtl trains).

    `image` is a file, a PIL image, or an array: uint8 (H, W, 3), uint8 (H, W), which is grey and becomes three equal
    channels as a grey file does, or float32 (1, 3, H, W), which is normalised already and only checked to be finite.
    Raises `UserError` for anything else.
    """
    if _is_tensor(image):
        if not np.isfinite(image).all():
            raise UserError("the image holds NaN or infinite values: give finite ones")
        return np.asarray(image, np.float32)
    pixels = resize_picture(_pixels(image), size)[None]
    if about is None:
        return normalize(pixels)
    pixels = pixels if about.colour == "RGB" else pixels[..., ::-1]
    return normalize(pixels, about.mean, about.std, about.scale)


def _is_tensor(image: ImageLike) -> TypeGuard[NDArray[np.float32]]:
    return isinstance(image, np.ndarray) and image.dtype == np.float32 and image.ndim == 4


def _pixels(image: ImageLike) -> NDArray[np.uint8]:
    """Convert what is no tensor yet to uint8 (H, W, 3)."""
    if isinstance(image, (str, os.PathLike)):
        return load_image(image)
    if isinstance(image, Image.Image):
        with naming("the PIL image"):
            return picture_pixels(image)
    given = f"of type {type(image).__name__}"
    if isinstance(image, np.ndarray):
        given = f"of shape {image.shape} and type {image.dtype}"
        if image.dtype == np.uint8 and image.size and (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
            return np.ascontiguousarray(image if image.ndim == 3 else np.stack([image] * 3, axis=2))
    raise UserError(
        f"image {given} given: a picture file, a PIL image, uint8 (H, W, 3) in RGB, grey uint8 (H, W) or normalised "
        "float32 (1, 3, H, W) is wanted"
    )
