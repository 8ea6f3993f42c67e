"""Arithmetic: the instructions that a processor multiplies eight-bit numbers with, and what INT8 engines need.

On x86 without VNNI runtimes multiply with `vpmaddubsw`: it adds two products of an unsigned and a signed eight-bit
number in sixteen bits, which saturate (2 x 255 x 127 is 64,770, and 32,767 is what they hold). With a weight of at most
`EXACT_WEIGHT` steps they never do: 2 x 255 x 64 is 32,640. Seven bits of weights are right everywhere; what all eight
need of the processor is written into the engine, and checked where it is opened.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from edgemtl.environment import environment
from edgemtl.errors import UserError

__all__ = ["ANY", "EXACT_INT8", "EXACT_WEIGHT", "NEEDS", "Arithmetic", "check_needs", "lacking", "own_arithmetic"]

Arithmetic = Literal["amx", "avx512-vnni", "avx-vnni", "avx2", "arm-dot", "arm", "other", "gpu", "dsp", "fpga"]
"""A class of processor (`edgemtl.environment.PROCESSOR_CLASSES`), or what stands beside one."""

ANY: Arithmetic = "other"
"""An unknown processor: an engine that is correct on it is correct on every one."""

EXACT_INT8 = "exact-int8"
EXACT_WEIGHT = 64

NEEDS = {
    EXACT_INT8: (
        frozenset({"amx", "avx512-vnni", "avx-vnni", "arm-dot", "arm", "gpu", "dsp", "fpga"}),
        "sums of eight-bit products that do not saturate (AMX, VNNI or Arm)",
    )
}
"""Properties that an engine may need: the arithmetics that have each, and its description."""


def own_arithmetic() -> Arithmetic:
    """The class of this machine's processor."""
    processor_class: Arithmetic = environment()["cpu"]["class"]
    return processor_class


def lacking(needs: Iterable[str], arithmetic: str) -> tuple[str, ...]:
    """The `needs` that an arithmetic does not meet, or that this version does not know."""
    return tuple(need for need in needs if need not in NEEDS or arithmetic not in NEEDS[need][0])


def check_needs(what: str, needs: Iterable[str]) -> None:
    """Raise `UserError` where this machine's processor lacks something that the engine `what` needs."""
    own = own_arithmetic()
    if missing := lacking(needs, own):
        texts = [NEEDS[need][1] if need in NEEDS else f"{need!r}, which this version does not know" for need in missing]
        raise UserError(
            f"{what} needs {' and '.join(texts)}, this processor ({own}) has none and would compute wrongly: export "
            "for this machine with `edgemtl export RUN --device host`, or for every processor with --portable"
        )
