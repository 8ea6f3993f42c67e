"""Boards with Arm processors: an OpenSSH server on loopback, whose Python is an aarch64 one that QEMU runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from arm_root import arm_python
from arm_root import missing as missing_tools
from loopback import SSHD, LoopbackBoard

from edgemtl.devices import Device, load_device, parse_reach
from edgemtl.profiling import close_boards

__all__ = ["CPUS", "emulated_board", "missing"]

CPUS = {"raspberry-pi-4": "cortex-a72", "raspberry-pi-5": "cortex-a76"}
"""QEMU's name of a board's processor."""


def missing() -> str:
    """Things that this machine lacks to emulate a board, empty where nothing is."""
    return missing_tools() or ("" if SSHD else "needs sshd: apt install openssh-server")


@contextmanager
def emulated_board(name: str, folder: Path) -> Iterator[Device]:
    """The device of that name, reached over ssh; engines that its measurer opens run on the emulated processor."""
    python, path = arm_python(CPUS[name]), os.environ["PATH"]
    server = LoopbackBoard(folder).start()
    os.environ["PATH"] = f"{server.folder / 'bin'}:{path}"
    try:
        reach = parse_reach(server.url(str(python)))
        yield load_device(name).model_copy(update={"reach": reach, "measurer": "ssh"})
    finally:
        close_boards()
        os.environ["PATH"] = path
        server.stop()
