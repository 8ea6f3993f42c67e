"""Names from untrusted files, cut to a length that tables and result files can hold."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

__all__ = ["short_name", "short_names"]

LONGEST = 80


def short_name(name: str) -> str:
    """The name itself, or its beginning and end where it has more than 80 characters."""
    half = (LONGEST - 1) // 2
    return name if len(name) <= LONGEST else f"{name[:half]}…{name[-half:]}"


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Each different name by its short form, in order; short forms that coincide are numbered."""
    full_names, seen = dict[str, str](), Counter[str]()
    for name in dict.fromkeys(names):
        short = short_name(name)
        seen[short] += 1
        full_names[short if seen[short] == 1 else f"{short} ({seen[short]})"] = name
    return full_names
