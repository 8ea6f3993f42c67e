"""Opening a source by what a person writes after `--data`."""

from __future__ import annotations

from edgemtl.data._elpv import ElpvSource
from edgemtl.data._sample import Source
from edgemtl.data._scenes_source import ScenesSource
from edgemtl.errors import unknown_name

__all__ = ["open_source", "source_names"]


def source_names() -> tuple[str, ...]:
    """Names that `open_source` knows besides folders and YAML files."""
    return ("elpv", "scenes")


def open_source(spec: str, size: tuple[int, int]) -> Source:
    """The source that `spec` names, with samples of `size` (height, width)."""
    if spec == "scenes":
        return ScenesSource(size)
    if spec == "elpv":
        return ElpvSource(size)
    raise unknown_name("data set", spec, source_names())
