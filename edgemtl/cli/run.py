"""`edgemtl run`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgemtl.cli.schedule import run_at_rates
from edgemtl.cli.screen import Screen
from edgemtl.cli.verb import interruptible, verb

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

    from edgemtl.bundle import BundleLevel
    from edgemtl.runtime import Engine
    from edgemtl.tasks import Task

__all__ = ["run"]

SECONDS = 5.0
SWEEP = (1.0, 0.5, 0.0, -0.5, -1.0)
FRAME_MS = 900
REFUSED_SHOWN = 5
STRENGTH = 4.0
"""Weight of a task at its end of a sweep, and at the other end."""


@verb(
    "run",
    examples=(
        "edgemtl run runs/first/bundle photo.jpg",
        "edgemtl run runs/first/bundle photos/*.png --tasks semseg,depth --target openvino --out seen",
        "edgemtl run runs/first/bundle photo.jpg --out runs/first/pictures   # and the report shows them",
        "edgemtl run runs/first/bundle photos/*.png --schedule depth:30,semseg:10 --seconds 5",
        "edgemtl run bundles/levels photo.jpg --sweep depth:semseg",
    ),
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--tasks", metavar="NAMES", help="Only these tasks: semseg,depth. A call pays for its own tasks only.")
@click.option(
    "--sweep",
    metavar="TASK:TASK",
    help="What a bundle of several levels predicts as the preference moves from one task to another: a sheet and an "
    "animation for each image.",
)
@click.option("--target", metavar="NAME", help="Which engine of the bundle; its first by default.")
@click.option("--threads", default=0, show_default=True, help="Threads of the runtime; 0 leaves it the choice.")
@click.option(
    "--schedule",
    metavar="RATES",
    help="Run each task at its own rate instead, in Hz: depth:30,semseg:10. The images are the frames of a camera, "
    "over and over; the end says which deadlines were missed.",
)
@click.option("--seconds", type=float, help=f"How long the schedule runs ({SECONDS:g} by default).")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("pictures"),
    show_default=True,
    help="Folder of the pictures, or of schedule.svg and schedule.json.",
)
def run(
    screen: Screen,
    bundle: Path,
    images: tuple[Path, ...],
    tasks: str | None,
    sweep: str | None,
    target: str | None,
    threads: int,
    schedule: str | None,
    seconds: float | None,
    out: Path,
) -> None:
    """Run chosen tasks on images and draw what they predict.

    Writes a picture with its legend for each image and task, and prints what fits into words. With --schedule, writes
    a timeline of the calls instead, and prints each task's rate, latency and missed deadlines.

    Images that cannot be read are named at the end, with exit status 1: the others are drawn all the same, but no
    schedule begins without them.
    """
    from edgemtl.errors import UserError
    from edgemtl.runtime import Engine

    if schedule is not None:
        if tasks is not None or sweep is not None:
            other = "--sweep" if tasks is None else "--tasks"
            raise UserError(f"--schedule names its own tasks: drop {other}, or drop --schedule to draw predictions")
        with Engine(bundle, target, threads) as engine:
            run_at_rates(screen, engine, images, schedule, SECONDS if seconds is None else seconds, threads, out)
        return
    if seconds is not None:
        raise UserError("--seconds says how long a schedule runs: give one, for example --schedule depth:30,semseg:10")
    drawn: list[dict[str, Any]] = []
    rows: list[tuple[str, str, str, str]] = []
    refused: list[str] = []
    with interruptible(f"the pictures that were drawn are in {out}"), Engine(bundle, target, threads) as engine:
        wanted = _wanted(engine, tasks)
        if sweep is not None:
            _sweep(screen, engine, images, wanted, sweep, out)
            return
        for path, name, image in _readable(images, refused):
            predicted = [*_draw(engine, image, wanted, out / name)]
            drawn.append({"image": str(path), "tasks": {task: figures for task, figures, _ in predicted}})
            rows += [(str(path), task, words, figures["picture"]) for task, figures, words in predicted]
    if not screen.as_json:
        screen.table(f"{bundle} on {engine.target}", ("image", "task", "says", "picture"), rows)
    screen.json(drawn)
    _check_refused(refused, len(drawn))


def _readable(images: Sequence[Path], refused: list[str]) -> Iterator[tuple[Path, str, NDArray[np.uint8]]]:
    """Each image that can be read, with a name for its pictures; why another one cannot is added to `refused`.

    Raises `UserError` after the last one where none could be read.
    """
    from edgemtl.errors import UserError
    from edgemtl.runtime import load_image

    for path, name in zip(images, _names(images), strict=True):
        try:
            image = load_image(path)
        except UserError as error:
            refused.append(str(error))
        else:
            yield path, name, image
    if len(refused) == len(images):
        _check_refused(refused, 0)


def _check_refused(refused: Sequence[str], drawn: int) -> None:
    """Raise one line for all images that could not be read, after the others are drawn."""
    from edgemtl.errors import UserError

    if not refused:
        return
    message = "; ".join(refused[:REFUSED_SHOWN])
    more = f"; and {len(refused) - REFUSED_SHOWN} more" if len(refused) > REFUSED_SHOWN else ""
    if drawn or len(refused) > 1:
        others = "the others are drawn" if drawn else "nothing is drawn"
        message = f"{len(refused)} of {len(refused) + drawn} images cannot be read, {others}: {message}"
    raise UserError(message + more)


def _sweep(
    screen: Screen, engine: Engine, images: Sequence[Path], tasks: Sequence[Task], sweep: str, out: Path
) -> None:
    """Draw a sheet for each image: a row for each level that the preference meets on its way from task to task.

    An animation beside it shows the rows one after another, there and back.
    """
    from edgemtl.files.disk import write_atomic
    from edgemtl.report import Example, animation, contact_sheet

    levels, drawn = _levels_between(engine, sweep), []
    refused: list[str] = []
    for path, name, image in _readable(images, refused):
        examples = []
        for level in levels:
            engine.set_level(budget=f"{level.cost.flops}FLOPs", prefer=level.preference)
            examples.append(Example(image, engine.predict(image, [task.name for task in tasks]), caption=level.name))
        picture = out / f"{name}-sweep-{sweep.replace(':', '-')}.png"
        moving = picture.with_suffix(".gif")
        write_atomic(picture, _png(contact_sheet(tasks, examples)))
        write_atomic(moving, _gif(animation(tasks, examples)))
        files = {"picture": str(picture), "animation": str(moving)}
        drawn.append({"image": str(path), "levels": [level.name for level in levels], **files})
    if not screen.as_json:
        rows = [(each["image"], " > ".join(each["levels"]), each["picture"], each["animation"]) for each in drawn]
        screen.table(f"{sweep} on {engine.target}", ("image", "levels", "picture", "animation"), rows)
    screen.json(drawn)
    _check_refused(refused, len(drawn))


def _levels_between(engine: Engine, sweep: str) -> list[BundleLevel]:
    """The different levels that are nearest to preferences from the first task's to the second's."""
    from edgemtl.errors import UserError, unknown_name

    names = [task.name for task in engine.tasks]
    ends = sweep.split(":")
    for name in ends:
        if name not in names:
            raise unknown_name("task in --sweep", name, names)
    if len(ends) != 2 or ends[0] == ends[1]:
        raise UserError(f"--sweep {sweep!r} is not understood: write two tasks, for example {names[0]}:{names[-1]}")
    chosen = []
    for share in SWEEP:
        preference = {**dict.fromkeys(names, 1.0), ends[0]: STRENGTH**share, ends[1]: STRENGTH**-share}
        level = engine.set_level(prefer=preference)
        if level not in chosen:
            chosen.append(level)
    if len(chosen) < 2:
        raise UserError(
            f"--sweep {sweep}: the levels do not distinguish these tasks, all are nearest to {chosen[0].name}: "
            "export it with more --levels"
        )
    return chosen


def _wanted(engine: Engine, tasks: str | None) -> list[Task]:
    from edgemtl.errors import unknown_name

    by_name = {task.name: task for task in engine.tasks}
    names = list(by_name) if tasks is None else tasks.split(",")
    for name in names:
        if name not in by_name:
            raise unknown_name("task in the bundle:", name, by_name)
    return [by_name[name] for name in dict.fromkeys(names)]


def _names(images: Sequence[Path]) -> list[str]:
    """A name for each image's pictures; images of the same name in several folders or formats are numbered."""
    names: list[str] = []
    stems = {image.stem for image in images}
    for image in images:
        name = image.stem
        if name in names:
            free = (f"{image.stem}-{number}" for number in itertools.count(2))
            name = next(each for each in free if each not in stems and each not in names)
        names.append(name)
    return names


def _draw(
    engine: Engine, image: NDArray[np.uint8], tasks: Sequence[Task], stem: Path
) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Predict, write a picture for each task; the figures that sum each task up, and the same in words."""
    from edgemtl.files.disk import write_atomic
    from edgemtl.report import draw_prediction
    from edgemtl.tasks import kind_of

    predictions = engine.predict(image, [task.name for task in tasks])
    for task in tasks:
        picture = stem.with_name(f"{stem.name}-{task.name}.png")
        write_atomic(picture, _png(draw_prediction(task, predictions[task.name], image)))
        summary = kind_of(task).summarize(task, predictions[task.name])
        yield task.name, {"kind": task.kind, **summary.figures, "picture": str(picture)}, summary.words


def _png(picture: Image) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _gif(frames: Sequence[Image]) -> bytes:
    """The frames forwards and backwards, in an endless loop."""
    buffer = BytesIO()
    others = [*frames[1:], *frames[-2:0:-1]]
    frames[0].save(buffer, "GIF", save_all=True, append_images=others, duration=FRAME_MS, loop=0)
    return buffer.getvalue()
