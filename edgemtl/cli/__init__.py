"""The command line: one file per verb, no work of its own.

Nothing here imports torch, numpy or another heavy package at the top of a module: `edgemtl --help` answers at once, and
a verb pays for what it uses.
"""

from edgemtl.cli.app import main

__all__ = ["main"]
