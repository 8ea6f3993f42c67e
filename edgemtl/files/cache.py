"""The folder of caches: what can be made again, and is kept outside of what a user writes or is given."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_root"]


def cache_root() -> Path:
    """Where caches live: `$EDGEMTL_CACHE`, else `~/.cache/edgemtl`."""
    given = os.environ.get("EDGEMTL_CACHE")
    return Path(given).expanduser() if given else Path.home() / ".cache" / "edgemtl"
