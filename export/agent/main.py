"""Entry point of the zipapp: the relay of one connection, or the worker that outlives connections."""

from __future__ import annotations

import sys
from pathlib import Path

__all__ = ["main"]


def main() -> None:
    """`relay FOLDER LEASE` or `work FOLDER LEASE LOCK`: a lease in seconds, and the number of an open, locked file."""
    role, folder, lease_s = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    if role == "relay":
        from agent.relay import Relay

        Relay(folder, lease_s).run()
    else:
        from agent.worker import Worker

        Worker(folder, lease_s, int(sys.argv[4])).run()
