"""The command that goes on from a bundle that was just written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgemtl.bundle import Manifest

__all__ = ["is_for_here", "profile_command"]


def is_for_here(manifest: Manifest) -> bool:
    """Whether an engine of a bundle is for this machine."""
    from edgemtl.devices import HOST

    return any(target.device == HOST for target in manifest.targets.values())


def profile_command(manifest: Manifest, folder: Path) -> str:
    """The command that measures a bundle: here where one of its engines is for this machine, else on its board."""
    from edgemtl.devices import device_names, load_device

    command = f"edgemtl profile {folder}"
    if is_for_here(manifest):
        return command
    boards = {target.device for target in manifest.targets.values()} & {*device_names()}
    reached = sorted(name for name in boards if load_device(name).reach.host)
    return f"{command} --device {reached[0] if reached else 'ssh://USER@BOARD'}"
