"""What the zipapp is started as: the relay of one connection, or the worker that outlives connections."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["main"]


def main() -> None:
    """`relay FOLDER` or `work FOLDER LOCK`, where LOCK is the number of an open, locked file."""
    role, folder = sys.argv[1], Path(sys.argv[2])
    if role == "relay":
        from agent.relay import Relay

        Relay(folder).run()
    else:
        from agent.worker import Worker

        Worker(folder, int(sys.argv[3])).run()
