"""A built-in procedural data set: furnished rooms with exact labels, made from a seed, nothing to download."""

from edgemtl.data.scenes.rendering import render
from edgemtl.data.scenes.source import ScenesSource
from edgemtl.data.scenes.types import CLASSES, Frame

__all__ = ["CLASSES", "Frame", "ScenesSource", "render"]
