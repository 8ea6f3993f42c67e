"""A grid that is small enough to be searched in a test, for the tasks of the small world."""

from __future__ import annotations

from pathlib import Path

from edgemtl.spaces import Space, load_space
from edgemtl.testing.landscape import write_space
from edgemtl.testing.world import TASKS

__all__ = ["GRID", "grid_space"]

GRID = """\
schema: edgemtl.space/1
family: grid
input: [64, 64]
grid:
  stem: 8
  paths: [{width: 8}, {width: 16}]
  stages: 2
  blocks: 1
  expand: 1
  decoder: {width: [8], depth: [1]}
"""


def grid_space(folder: Path) -> Space:
    """The grid for a depth and a class."""
    return load_space(str(write_space(folder, "small-grid", GRID)), TASKS)
