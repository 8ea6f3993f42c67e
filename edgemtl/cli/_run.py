"""`edgemtl run`."""

from __future__ import annotations

from pathlib import Path

import click

from edgemtl.cli._screen import Screen
from edgemtl.cli._verb import verb

__all__ = ["run"]


@verb(
    "run",
    examples=(
        "edgemtl run runs/first/bundle photo.jpg",
        "edgemtl run runs/first/bundle photos/*.png --tasks semseg,depth --target openvino --out pictures",
    ),
)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--tasks", metavar="NAMES", help="Only these tasks: semseg,depth. A call pays for its own tasks only.")
@click.option("--target", metavar="NAME", help="Which engine of the bundle; its first by default.")
@click.option("--threads", default=0, show_default=True, help="Threads of the runtime; 0 leaves it the choice.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("pictures"), show_default=True, help="Where the pictures go."
)
def run(
    screen: Screen,
    bundle: Path,
    images: tuple[Path, ...],
    tasks: str | None,
    target: str | None,
    threads: int,
    out: Path,
) -> None:
    """Run chosen tasks on images and draw what they predict.

    Writes a picture for each image and task; a task without a map (a class, a number) is printed.
    """
