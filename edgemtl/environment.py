"""The environment of a result: versions, processor, memory, load and source revision, read in milliseconds.

No package is imported for its version and no program is started: if labelling cost a second, results would
soon go unlabelled.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterable
from datetime import datetime, timezone
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgemtl.version import __version__

__all__ = ["BF16_FLAGS", "CPU_FLAGS", "PROCESSOR_CLASSES", "environment", "processor_class"]

PACKAGES = ("numpy", "onnx", "onnxruntime", "openvino", "nncf", "tensorrt", "tensorrt-rtx", "torch")
CPU_FLAGS = (
    "avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",
    "asimd", "asimdhp", "asimddp", "bf16", "i8mm", "sve",
)  # fmt: skip
"""Instruction sets that change what INT8, BF16 or FP16 cost; the others are left out of results."""
BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""Of these the ones that multiply BF16."""

PROCESSOR_CLASSES = {
    "amx": "amx_int8",
    "avx512-vnni": "avx512_vnni",
    "avx-vnni": "avx_vnni",
    "avx2": "avx2",
    "arm-dot": "asimddp",
    "arm": "asimd",
    "other": "",
}
"""Classes of processors by what they multiply eight-bit numbers with, best first, and the flag of each."""

_CPU = Path("/sys/devices/system/cpu")


def processor_class(flags: Iterable[str]) -> str:
    """The first of `PROCESSOR_CLASSES` whose flag is among a processor's `flags`, as the kernel names them."""
    present = {"", *flags}
    return next(name for name, flag in PROCESSOR_CLASSES.items() if flag in present)


def environment() -> dict[str, Any]:
    """Versions, processor, memory, load and git commit of the working directory, for a result file (JSON values only).

    Values that cannot be read are None: an unknown clock is not a fixed one. Takes a few milliseconds.
    """
    return {
        "edgemtl": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "cpu": _cpu(),
        "memory": _memory(),
        "load_average": [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "git_commit": _git_commit(Path.cwd()),
        "time_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


@lru_cache(maxsize=None)
def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _cpu() -> dict[str, Any]:
    text = _read(Path("/proc/cpuinfo")) or ""
    fields: dict[str, list[str]] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), []).append(value.strip())
    flags = set(" ".join((fields.get("flags") or fields.get("Features") or [""])[:1]).split())
    clocks = [float(value) for value in fields.get("cpu MHz", []) if value.replace(".", "", 1).isdigit()]
    return {
        "model": next(iter(fields.get("model name", [])), None) or _read(Path("/proc/device-tree/model")),
        "flags": [flag for flag in CPU_FLAGS if flag in flags],
        "class": processor_class(flags),
        "cores": _cores(fields),
        "threads": os.cpu_count(),
        "usable_threads": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "clock_mhz": _clock_mhz() or (round(sum(clocks) / len(clocks), 1) if clocks else None),
        "governor": _read(_CPU / "cpu0/cpufreq/scaling_governor"),
    }


def _cores(fields: dict[str, list[str]]) -> int | None:
    """Physical cores: distinct (socket, core) pairs where the kernel names them."""
    pairs = set(zip(fields.get("physical id", []), fields.get("core id", [])))
    return len(pairs) or os.cpu_count()


def _clock_mhz() -> float | None:
    clock = _read(_CPU / "cpu0/cpufreq/scaling_cur_freq")
    return int(clock) / 1000 if clock and clock.isdigit() else None


def _memory() -> dict[str, int | None]:
    text = _read(Path("/proc/meminfo")) or ""
    lines = re.findall(r"^(MemTotal|MemAvailable):\s+(\d+) kB", text, re.MULTILINE)
    amounts = {key: int(kilobytes) * 1024 for key, kilobytes in lines}
    return {"total_bytes": amounts.get("MemTotal"), "available_bytes": amounts.get("MemAvailable")}


def _git_commit(start: Path) -> str | None:
    """The commit checked out in the repository around `start`, read from its files (worktrees and packed refs too)."""
    for folder in (start, *start.parents):
        marker = folder / ".git"
        if marker.is_dir():
            return _head(marker)
        if marker.is_file() and (text := _read(marker)) and text.startswith("gitdir:"):
            return _head((folder / text[len("gitdir:") :].strip()).resolve())
    return None


def _head(git: Path) -> str | None:
    head = _read(git / "HEAD") or ""
    if not head.startswith("ref:"):
        return head or None
    name = head[len("ref:") :].strip()
    shared = _read(git / "commondir")
    for root in (git, (git / shared).resolve() if shared else git):
        if commit := _read(root / name):
            return commit
        packed = re.search(rf"^([0-9a-f]+) {re.escape(name)}$", _read(root / "packed-refs") or "", re.MULTILINE)
        if packed:
            return packed[1]
    return None
