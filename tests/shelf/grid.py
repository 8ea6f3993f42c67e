"""A grid that is small enough for many designs, and the tasks of every kind of decoder."""

from __future__ import annotations

from pathlib import Path

from edgemtl.spaces import Space, load_space
from edgemtl.tasks import make_task

__all__ = ["GRID", "TASKS", "grid_space"]

GRID = """\
schema: edgemtl.space/1
family: grid
input: [64, 96]
grid:
  stem: 8
  paths: [{width: 8}, {width: 16, block: depthwise}, {width: 24}]
  stages: 2
  blocks: 2
  expand: 2
  decoder: {width: [8], depth: [1]}
"""
TASKS = (make_task("semseg", "segmentation", 3), make_task("depth", "depth"), make_task("kind", "classification", 4))


def grid_space(folder: Path, text: str = GRID) -> Space:
    """The tiny grid for three tasks."""
    path = folder / "tiny-grid.yaml"
    path.write_text(text)
    return load_space(str(path), TASKS)
