"""`edgemtl report`."""

from __future__ import annotations

from pathlib import Path

import click

from edgemtl.cli.screen import Screen
from edgemtl.cli.verb import verb

__all__ = ["report"]


@verb("report", examples=("edgemtl report runs/first", "edgemtl report runs/first/bundle --out bundle.html"))
@click.argument("path", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="The page; report.html beside what is reported by default."
)
def report(screen: Screen, path: Path, out: Path | None) -> None:
    """Write one HTML page about a run or bundle.

    The page is self-contained: front, metrics, latency, design and environment, each figure with where it came from.
    """
    from edgemtl.report import write_report

    file = write_report(path, out)
    screen.json({"report": str(file)})
    if not screen.as_json:
        screen.say(f"written: {file}")
