"""Names from untrusted files, cut to a length that tables and result files can hold."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = ["short_name", "short_names"]

LONGEST = 80


def short_name(name: str) -> str:
    """The name itself, or its beginning and end where it has more than 80 characters."""
    half = (LONGEST - 1) // 2
    return name if len(name) <= LONGEST else f"{name[:half]}…{name[-half:]}"


def short_names(names: Iterable[str]) -> dict[str, str]:
    """Each different name by its short form, in order; short forms that coincide are numbered."""
    full_names: dict[str, str] = {}
    for name in dict.fromkeys(names):
        short, number = short_name(name), 2
        while short in full_names:
            short, number = f"{short_name(name)} ({number})", number + 1
        full_names[short] = name
    return full_names
