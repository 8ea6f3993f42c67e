"""TensorRT-RTX engines are written here and run elsewhere: opening one is refused with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from edgemtl.errors import UnsupportedError
from edgemtl.runtime.session import EngineSpec

__all__ = ["open_session"]


def open_session(
    folder: Path, spec: EngineSpec, threads: int, modes: Sequence[Sequence[str]] | None = None
) -> NoReturn:
    """Raise `UnsupportedError`: such an engine needs an NVIDIA GPU and its driver."""
    generation = spec.options.get("generation", "RTX")
    raise UnsupportedError(
        f"engine {folder} is for TensorRT-RTX on an NVIDIA GPU of the {generation} generation, which needs such a GPU "
        "and its driver: run its engine.plan there, or open another target of the bundle here"
    )
