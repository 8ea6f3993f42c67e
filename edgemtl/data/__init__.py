"""Data sets: samples with a validity mask per task, one source per format, batches and augmentation.

Nothing here needs torch. Sources are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from edgemtl.data._augment import augment
    from edgemtl.data._elpv import ElpvSource
    from edgemtl.data._folder import FolderSource
    from edgemtl.data._folder_check import CheckReport, check_folder
    from edgemtl.data._folder_models import folder_kinds
    from edgemtl.data._open import open_source, source_names
    from edgemtl.data._sample import SPLITS, Batch, Sample, Source, Split, collate
    from edgemtl.data._scenes_source import ScenesSource
    from edgemtl.data._teachers import PseudoLabelled, Teacher, onnx_teacher

__all__ = [
    "SPLITS",
    "Batch",
    "CheckReport",
    "ElpvSource",
    "FolderSource",
    "PseudoLabelled",
    "Sample",
    "ScenesSource",
    "Source",
    "Split",
    "Teacher",
    "augment",
    "check_folder",
    "collate",
    "folder_kinds",
    "onnx_teacher",
    "open_source",
    "source_names",
]

_HOMES = {
    "_augment": ("augment",),
    "_elpv": ("ElpvSource",),
    "_folder": ("FolderSource",),
    "_folder_check": ("CheckReport", "check_folder"),
    "_folder_models": ("folder_kinds",),
    "_open": ("open_source", "source_names"),
    "_sample": ("SPLITS", "Batch", "Sample", "Source", "Split", "collate"),
    "_scenes_source": ("ScenesSource",),
    "_teachers": ("PseudoLabelled", "Teacher", "onnx_teacher"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
