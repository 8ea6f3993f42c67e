"""`edgemtl compare`."""

from __future__ import annotations

from pathlib import Path

import click

from edgemtl.cli.screen import Screen
from edgemtl.cli.verb import verb

__all__ = ["compare"]


@verb(
    "compare",
    examples=(
        "edgemtl compare runs/first runs/second",
        "edgemtl compare runs/first/bundle/profile.json other/profile.json",
    ),
)
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
def compare(screen: Screen, first: Path, second: Path) -> None:
    """Show two runs, bundles or profiles together."""
    from edgemtl.report import COMPARISON_COLUMNS, comparison_cells
    from edgemtl.report import compare as compare_two

    comparison = compare_two(first, second)
    if not screen.as_json:
        screen.table(f"{first} and {second}", COMPARISON_COLUMNS, comparison_cells(comparison))
        for note in comparison["notes"]:
            screen.say(f"note: {note}")
    screen.json(comparison)
