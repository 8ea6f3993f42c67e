"""JetPack releases, NVIDIA's system software of Jetson boards, and what each brings: TensorRT, CUDA, Python.

TensorRT comes with the system and an engine opens only by the version that built it, so that a release decides which
graphs a board takes.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgemtl.errors import unknown_name

__all__ = ["JETPACKS", "JetPack", "find_jetpack", "version_of"]


@dataclass(frozen=True)
class JetPack:
    """A release: versions of what it brings, and the modules that its TensorRT serves, as devices are named."""

    name: str
    tensorrt: str
    cuda: str
    python: str
    modules: tuple[str, ...]


JETPACKS = {
    release.name: release
    for release in (
        JetPack("5.1", "8.5.2", "11.4", "3.8", ("xavier", "orin")),
        JetPack("6.0", "8.6.2", "12.2", "3.10", ("orin",)),
        JetPack("6.1", "10.3.0", "12.6", "3.10", ("orin",)),
        JetPack("6.2", "10.3.0", "12.6", "3.10", ("orin",)),
        JetPack("7.0", "10.13.3", "13.0", "3.12", ("thor",)),
        JetPack("7.1", "10.13.3", "13.0", "3.12", ("thor",)),
        JetPack("7.2.2", "11.4.1", "13.2", "3.12", ("agx-orin", "thor")),  # of the Orins, NVIDIA names this one alone
    )
}
"""The releases that are known, by name, oldest first; a patch release (6.2.1) brings what its release brings."""


def find_jetpack(name: str) -> JetPack:
    """The release called `name`, or that a patch release belongs to; raises `UserError` with the nearest names.

    >>> find_jetpack("6.2.1").tensorrt
    '10.3.0'
    """
    parts = name.split(".")
    for length in range(len(parts), 0, -1):
        if release := JETPACKS.get(".".join(parts[:length])):
            return release
    raise unknown_name("JetPack", name, JETPACKS)


def version_of(text: str) -> tuple[int, ...]:
    """A version's numbers, for comparisons: of 10.3 and 8.5 the first is the newer."""
    return tuple(int(part) for part in text.split(".") if part.isdigit())
