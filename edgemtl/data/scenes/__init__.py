"""A built-in procedural data set: furnished rooms with exact labels, made from a seed, nothing to download."""

from __future__ import annotations

from edgemtl.data.scenes._render import render
from edgemtl.data.scenes._types import CLASSES, Frame

__all__ = ["CLASSES", "Frame", "render"]
