"""The images that decide and score, rendered or read ahead of the first evaluation."""

from __future__ import annotations

import os
from typing import Protocol, runtime_checkable

from edgemtl.data import Source, Split
from edgemtl.progress import Report, silent

__all__ = ["prepare_images"]

_SPLITS: tuple[Split, ...] = ("calibration", "validation", "test")


@runtime_checkable
class _Preparable(Protocol):
    def prepare(self, split: Split, workers: int = 1, report: Report = silent) -> None: ...


def prepare_images(source: Source, report: Report) -> None:
    """Prepare what every evaluation needs, with all cores, where the source prepares anything."""
    if isinstance(source, _Preparable):
        for split in _SPLITS:
            source.prepare(split, os.cpu_count() or 1, report)
