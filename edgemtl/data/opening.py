"""Opening a source by what a person writes after `--data`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgemtl.data.elpv import ElpvSource
from edgemtl.data.folder import FolderSource
from edgemtl.data.sample import Source
from edgemtl.data.scenes import ScenesSource
from edgemtl.errors import UserError, unknown_name
from edgemtl.plugins import Registry

__all__ = ["open_source", "source_names"]

_SOURCES: Registry[Callable[[tuple[int, int]], Source]] = Registry(
    "data set", "edgemtl.sources", {"elpv": lambda: ElpvSource, "scenes": lambda: ScenesSource}, returns=Source
)


def source_names() -> list[str]:
    """Names that `open_source` knows besides folders and YAML files: built in, or plugged in by `edgemtl.sources`."""
    return _SOURCES.names()


def open_source(spec: str, size: tuple[int, int]) -> Source:
    """The source that `spec` names, with samples of `size` (height, width): a name, a YAML file or the folder of one.

    A known name comes before a folder that is called the same (write ./NAME for the folder). Raises `UserError` where
    neither is there, and where the data set has problems; `MissingDependencyError` without the package it needs.

    >>> source = open_source("scenes", size=(48, 64))
    >>> [task.name for task in source.tasks]
    ['semseg', 'depth', 'normals', 'edges']
    """
    if spec in source_names():
        return _SOURCES.call(spec, size)
    path = Path(spec).expanduser()
    if _there(path) or "/" in spec or path.suffix in (".yaml", ".yml"):
        return FolderSource(path, size)
    raise UserError(
        f"{unknown_name('data set', spec, source_names())}, or the path of a data set's YAML file or folder"
    )


def _there(path: Path) -> bool:
    """Whether something has this path; an impossible path (too long, a NUL in it) has nothing."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
