"""Generations of TensorRT: how a network's precision is said to each, and which opsets its ONNX parser reads.

Up to 8.x precision is a flag of the builder, and the graph's types say nothing. From 10 on networks are strongly typed:
a tensor's precision is its type. TensorRT 11 has no flags of precision any more. Facts are those of onnx-tensorrt's
operator lists and of NVIDIA's guides on migration from 8 to 10 and from 10 to 11.
"""

from __future__ import annotations

from dataclasses import dataclass

from edgemtl.errors import UserError
from edgemtl.jetpack import version_of

__all__ = ["GENERATIONS", "TENSORRT_VERSIONS", "Generation", "generation_of"]


@dataclass(frozen=True)
class Generation:
    """TensorRT from version `since` on, until the next; `opsets` are the oldest and newest that its parser reads."""

    since: str
    opsets: tuple[int, int]
    strongly_typed: bool


GENERATIONS = (
    Generation("8.5", (7, 17), strongly_typed=False),
    Generation("8.6", (7, 17), strongly_typed=False),
    Generation("10.0", (9, 20), strongly_typed=True),
    Generation("10.13", (9, 24), strongly_typed=True),
    Generation("11.0", (9, 25), strongly_typed=True),
)
"""Oldest first."""

TENSORRT_VERSIONS = ("8.5", "10.3", "10.13", "11.4")
"""The versions that every graph is held against: those of JetPack 5.1, 6.2, 7.1 and 7.2."""


def generation_of(version: str) -> Generation:
    """The generation that TensorRT `version` belongs to; raises `UserError` where it is older than all of them."""
    fitting = [each for each in GENERATIONS if version_of(each.since) <= version_of(version)]
    if not fitting:
        raise UserError(
            f"TensorRT {version} given: {GENERATIONS[0].since} or newer is needed, which JetPack 5.1 brings"
        )
    return fitting[-1]
