"""`edgemtl profile`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from edgemtl.cli.level_table import show_levels
from edgemtl.cli.screen import Screen
from edgemtl.cli.stages import Stages
from edgemtl.cli.tables import show_profile
from edgemtl.cli.verb import interruptible, parse_shapes, verb

__all__ = ["profile"]

LONGEST_STEM = 200


@verb(
    "profile",
    examples=(
        "edgemtl profile runs/first/bundle",
        "edgemtl profile runs/first/bundle --target openvino --threads 1 --tasks depth",
        "edgemtl profile model.onnx --runs 500 --out model.profile.json",
        "edgemtl profile model.onnx --target openvino --shape image=1x3x480x640",
        "edgemtl profile runs/first/bundle --device ssh://pi@raspberrypi.local",
    ),
)
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--device",
    metavar="NAME",
    default="host",
    show_default=True,
    help="Where to measure: a device (see edgemtl devices), or ssh://user@host[:port][/path/to/python3].",
)
@click.option(
    "--target",
    metavar="NAME",
    help="Which engine of a bundle, its first by default; for an ONNX file onnxruntime, openvino or tensorrt-rtx.",
)
@click.option("--tasks", metavar="NAMES", help="Only these tasks: depth,normals.")
@click.option("--threads", default=0, show_default=True, help="Threads of the runtime; 0 leaves it the choice.")
@click.option("--runs", default=200, show_default=True, help="Samples for each set of tasks.")
@click.option(
    "--shape",
    "shapes",
    metavar="NAME=SIZES",
    multiple=True,
    help="Sizes of an input of an ONNX file that leaves them open: image=1x3x480x640; without NAME for its only input.",
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="Where profile.json goes; beside what is measured by default."
)
def profile(
    screen: Screen,
    path: Path,
    device: str,
    target: str | None,
    tasks: str | None,
    threads: int,
    runs: int,
    shapes: tuple[str, ...],
    out: Path | None,
) -> None:
    """Measure a bundle, an engine folder or an ONNX file, here or on a board.

    All tasks together, each alone, and all but each are timed in turns, so that what the trunk and each task cost is
    known. Of a bundle of levels the first is timed; what the others cost, and what a switch to each, is shown beside.
    """
    from edgemtl.bundle import MANIFEST_FILE, read_manifest
    from edgemtl.devices import HOST
    from edgemtl.files.disk import read_json
    from edgemtl.profiling import profile as measure
    from edgemtl.profiling import profile_file, write_profile

    destination = profile_file(out or (path if path.is_dir() else _profile_path(path)))
    wanted: Sequence[str] | None = tasks.split(",") if tasks else None
    sizes = parse_shapes(shapes)
    with interruptible("nothing was measured to the end, nothing was written"), Stages() as stages:
        measured = measure(
            path, device, target=target, threads=threads, runs=runs, tasks=wanted, shapes=sizes, report=stages
        )
    file = write_profile(measured, destination)
    if not screen.as_json:
        show_profile(screen, measured)
        if device == HOST and (path / MANIFEST_FILE).is_file():
            show_levels(screen, read_manifest(path), path)
        screen.say(f"written: {file}")
    screen.json(read_json(file, "profile"))


def _profile_path(file: Path) -> Path:
    """`NAME.profile.json` next to a file, with NAME cut so that the whole fits the 255 bytes of file systems."""
    stem = os.fsencode(file.stem)
    name = file.stem if len(stem) <= LONGEST_STEM else stem[:LONGEST_STEM].decode(errors="ignore")
    return file.with_name(f"{name}.profile.json")
