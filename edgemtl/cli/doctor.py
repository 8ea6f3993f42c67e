"""`edgemtl doctor`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import click

from edgemtl.cli.installed import EXTRAS, install_line, version_of
from edgemtl.cli.screen import Screen
from edgemtl.cli.verb import verb
from edgemtl.units import format_bytes

__all__ = ["doctor"]


@verb(
    "doctor",
    examples=(
        "edgemtl doctor",
        "edgemtl doctor --device jetson-orin-nano",
        "edgemtl doctor --format json > doctor.json",
    ),
)
@click.option("--device", metavar="NAME", help="Show what can be done for this board from here, and what is missing.")
def doctor(screen: Screen, device: str | None) -> None:
    """Show what is installed and what is missing.

    Also how to install it, and the properties of this machine. Add the output to a bug report.
    """
    if device is not None:
        from edgemtl.cli.board import show_board

        show_board(screen, device)
        return
    from edgemtl.devices import device_names
    from edgemtl.environment import environment
    from edgemtl.files.cache import cache_root

    machine = environment()
    extras = {extra: version_of(package) for extra, (package, _) in EXTRAS.items()}
    disks = {"working directory": _disk(Path.cwd()), "cache": _disk(cache_root())}
    if not screen.as_json:
        _packages(screen, machine["packages"], extras)
        _machine(screen, machine, disks)
        screen.say(f"devices: {', '.join(device_names())}")
    screen.json(
        {
            "executable": sys.executable,
            "environment": machine,
            "extras": extras,
            "disks": disks,
            "devices": device_names(),
        }
    )


def _packages(screen: Screen, packages: dict[str, str | None], extras: dict[str, str | None]) -> None:
    core = [(name, version, "", "") for name, version in packages.items() if version and name not in extras]
    optional = [
        (EXTRAS[extra][0], version, EXTRAS[extra][1], "" if version else install_line(extra))
        for extra, version in extras.items()
    ]
    screen.table("Packages", ("package", "version", "for", "to get it"), [*core, *optional])


def _machine(screen: Screen, machine: dict[str, Any], disks: dict[str, dict[str, Any]]) -> None:
    cpu, memory = machine["cpu"], machine["memory"]
    rows: list[tuple[str, object]] = [
        ("edgemtl", machine["edgemtl"]),
        ("Python", f"{machine['python']}, {sys.executable}"),
        ("platform", machine["platform"]),
        ("CPU", f"{cpu['model']}, {cpu['cores']} cores, {cpu['usable_threads']} threads usable"),
        ("CPU class", f"{cpu['class']} (what it multiplies eight-bit numbers with)"),
        ("CPU features", " ".join(cpu["flags"]) or "none that edgemtl knows"),
        ("clock governor", cpu["governor"]),
        ("memory", f"{_size(memory['total_bytes'])}, {_size(memory['available_bytes'])} available"),
        *((name, f"{_size(disk['free_bytes'])} free in {disk['path']}") for name, disk in disks.items()),
    ]
    screen.table("This machine", ("what", "value"), rows)


def _disk(path: Path) -> dict[str, Any]:
    """Free bytes where `path` is, or will be made."""
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    return {"path": str(path), "free_bytes": shutil.disk_usage(there).free}


def _size(count: int | None) -> str:
    return "unknown" if count is None else format_bytes(count)
