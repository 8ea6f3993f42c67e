"""Engines that a board has built, in its user's cache: each with its key, and built again where that is another.

They do not lie in a bundle: a plan executes what whoever wrote it wanted, and a bundle may be a stranger's. A cache may
come from another board by a copied disk, so that the key says which GPU and TensorRT an engine is of.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgemtl.errors import EngineWarning, UserError
from edgemtl.files.cache import cache_root
from edgemtl.files.disk import read_bytes, read_json, write_atomic, write_json
from edgemtl.runtime.tensorrt.board import EngineKey, differences

__all__ = ["stored_or_built"]

_FOLDER = "tensorrt"
_KEY, _PLAN, _TIMINGS = "engine.key.json", "engine.plan", "timings.cache"
_LARGEST_PLAN = 2**32


def stored_or_built(key: EngineKey, build: Callable[[bytes], tuple[bytes, bytes]]) -> bytes:
    """The plan of this key: the stored one of its graph, or else a new one, which is stored in its place.

    `build` is given the timings of kernels of the last build (empty: there are none of this GPU and TensorRT). What
    differs from a stored engine is said in a warning.
    """
    own = cache_root() / _FOLDER / key.graph[:16]
    stored = _read_key(own)
    if stored is not None:
        differing = differences(stored, key) if stored else []
        plan = None if differing else _read_plan(own, stored)
        if plan is not None:
            return plan
        reason = "is of {}".format(", ".join(differing)) if differing else "is damaged"
        warnings.warn(f"the engine in {own} {reason}: it is built again", EngineWarning, stacklevel=2)
    same_kernels = stored is not None and all(stored.get(name) == getattr(key, name) for name in ("gpu", "tensorrt"))
    timings = own / _TIMINGS
    before = read_bytes(timings, "timings", _LARGEST_PLAN) if same_kernels and timings.is_file() else b""
    plan, after = build(before)
    write_atomic(timings, after)
    write_atomic(own / _PLAN, plan)
    write_json(own / _KEY, {**key.as_json(), "plan": hashlib.sha256(plan).hexdigest()})
    return plan


def _read_key(own: Path) -> dict[str, Any] | None:
    """The key of the stored engine; empty where it cannot be read, None where there is no engine."""
    path = own / _KEY
    if not path.is_file():
        return None
    try:
        content = read_json(path, "key of an engine")
    except UserError:
        return {}
    return content if isinstance(content, dict) else {}


def _read_plan(own: Path, stored: dict[str, Any]) -> bytes | None:
    path = own / _PLAN
    plan = read_bytes(path, "engine", _LARGEST_PLAN) if path.is_file() else b""
    return plan if hashlib.sha256(plan).hexdigest() == stored.get("plan") else None
