"""JetPack releases, NVIDIA's system software of Jetson boards, and what each brings: TensorRT, CUDA, Python.

TensorRT comes with the system and an engine opens only by the version that built it, so that a release decides which
graphs a board takes.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgemtl.errors import unknown_name

__all__ = ["JETPACKS", "JetPack", "find_jetpack", "known_jetpack", "version_of"]


@dataclass(frozen=True)
class JetPack:
    """A release and the versions of what it brings; device files name those that run on a board, among its systems."""

    name: str
    tensorrt: str
    cuda: str
    python: str


JETPACKS = {
    release.name: release
    for release in (
        JetPack("5.1", "8.5.2", "11.4", "3.8"),
        JetPack("6.0", "8.6.2", "12.2", "3.10"),
        JetPack("6.1", "10.3.0", "12.6", "3.10"),
        JetPack("6.2", "10.3.0", "12.6", "3.10"),
        JetPack("7.0", "10.13.3", "13.0", "3.12"),
        JetPack("7.1", "10.13.3", "13.0", "3.12"),
        JetPack("7.2.2", "11.4.1", "13.2", "3.12"),
    )
}
"""The releases that are known, by name, oldest first; a patch release (6.2.1) brings what its release brings."""


def known_jetpack(name: str) -> JetPack | None:
    """The release called `name`, or that a patch release belongs to; None where it is neither."""
    parts = name.split(".")
    ends = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
    return next((JETPACKS[end] for end in ends if end in JETPACKS), None)


def find_jetpack(name: str) -> JetPack:
    """The release called `name`, or that a patch release belongs to; raises `UserError` with the nearest names.

    >>> find_jetpack("6.2.1").tensorrt
    '10.3.0'
    """
    release = known_jetpack(name)
    if release is None:
        raise unknown_name("JetPack", name, JETPACKS)
    return release


def version_of(text: str) -> tuple[int, ...]:
    """A version's numbers, for comparisons: of 10.3 and 8.5 the first is the newer."""
    return tuple(int(part) for part in text.split(".") if part.isdigit())
