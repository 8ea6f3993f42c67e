"""Time and memory that opening a model costs the process that does it first; the agent measures them on boards."""

from __future__ import annotations

import re
from pathlib import Path
from time import perf_counter
from typing import Any, Callable, TypeVar

__all__ = ["measure_first_run", "resident_bytes"]

T = TypeVar("T")


def measure_first_run(opener: Callable[[], T], run: Callable[[T], float]) -> tuple[T, dict[str, Any]]:
    """Open something and `run` it once, which gives its ms: what was opened, and the fields of `schema.Opening`."""
    baseline = resident_bytes("VmRSS")
    start = perf_counter()
    opened = opener()
    open_ms, open_peak = 1000 * (perf_counter() - start), resident_bytes("VmHWM")
    fields = {
        "open_ms": open_ms,
        "first_run_ms": run(opened),
        "baseline_bytes": baseline,
        "open_peak_bytes": open_peak,
        "run_peak_bytes": resident_bytes("VmHWM"),
    }
    return opened, fields


def resident_bytes(field: str) -> int | None:
    """`VmRSS` (now) or `VmHWM` (peak) of this process, None where the system does not tell.

    Not `getrusage`: on Linux its peak is inherited from the process that forked this one, and may be far larger.
    """
    try:
        text = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    match = re.search(rf"^{field}:\s+(\d+) kB", text, re.MULTILINE)
    return int(match[1]) * 1024 if match else None
