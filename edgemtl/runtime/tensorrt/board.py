"""Facts of a Jetson board that decide whether an engine opens on it, and how fast it is: the key of an engine.

They are read from files of the system, below a root so that a test may have one of its own. What is not there is
"unknown", and compared as such. Python 3.8 and the standard library suffice.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["EngineKey", "available_bytes", "differences", "key_of"]

_UNKNOWN = "unknown"
_MODEL, _RELEASE = "proc/device-tree/model", "etc/nv_tegra_release"
_POWER_MODE, _MEMORY = "var/lib/nvpmodel/status", "proc/meminfo"


@dataclass(frozen=True)
class EngineKey:
    """The board and software that an engine was built by and for: another value of any field, and it is built again.

    `gpu` is the board and its compute capability, `system` the release of Jetson Linux that JetPack brought, `graph`
    the SHA-256 of the graph, and `settings` that of how it is built.
    """

    gpu: str
    tensorrt: str
    system: str
    power_mode: str
    graph: str
    settings: str

    def as_json(self) -> dict[str, str]:
        """For the file beside an engine."""
        return asdict(self)


def key_of(
    tensorrt: str, capability: str, graph: str, settings: dict[str, object], root: Path = Path("/")
) -> EngineKey:
    """The key of an engine that this board's TensorRT builds of a graph (its SHA-256) with these settings."""
    model = _text(root / _MODEL).strip("\0 \n") or _UNKNOWN
    mode = re.search(r"pmode:(\w+)", _text(root / _POWER_MODE))
    return EngineKey(
        f"{model} ({capability})",
        tensorrt,
        _linux(_text(root / _RELEASE)),
        mode.group(1) if mode else _UNKNOWN,
        graph,
        hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16],
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _linux(text: str) -> str:
    """The release of Jetson Linux (36.4.3) in `# R36 (release), REVISION: 4.3, …`."""
    match = re.search(r"R(\d+) \(release\), REVISION: ([\d.]+)", text)
    return "Jetson Linux {}.{}".format(*match.groups()) if match else _UNKNOWN


def differences(stored: dict[str, object], key: EngineKey) -> list[str]:
    """The fields in which a stored key is another one, in words."""
    words = []
    for name, value in key.as_json().items():
        before = stored.get(name, _UNKNOWN)
        if before != value:
            label = name.replace("_", " ")
            shown = f"another {label}" if name in ("graph", "settings") else None
            words.append(shown or f"{label} {before} (here {value})")
    return words


def available_bytes(root: Path = Path("/")) -> int:
    """The memory that programs may take without swapping, which GPU and CPU of a Jetson share; 0 where unknown."""
    match = re.search(r"MemAvailable:\s+(\d+) kB", _text(root / _MEMORY))
    return int(match.group(1)) * 1024 if match else 0
