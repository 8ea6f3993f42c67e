"""Projects for an FPGA are written and simulated by the export, and run elsewhere: opening one is refused."""

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
    """Raise `UnsupportedError`: a project is C++, and what others wrote is not compiled and run here."""
    part = spec.options.get("part", "an FPGA")
    raise UnsupportedError(
        f"engine {folder} is a project for {part}, of which the vendor's tools make a bitstream (vitis-run --tcl "
        "build_prj.tcl --mode hls); only the export that writes it simulates it: open another target of the bundle here"
    )
