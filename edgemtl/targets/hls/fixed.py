"""Fixed-point numbers as integers: what `export/hls/fixed.hpp` computes, in numpy."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Format", "Integers", "fitting", "narrow", "saturate"]

Integers: TypeAlias = NDArray[np.int64]
MOST_FRACTION = 30
"""Binary places that weights get at most, however small they are: sums stay within 63 bits."""


@dataclass(frozen=True)
class Format:
    """Signed numbers of `bits`, `fraction` of them behind the binary point; rounded to the nearest, saturating.

    >>> Format(16, 8).integers([1.5, 1000.0]).tolist()
    [384, 32767]
    """

    bits: int
    fraction: int

    @property
    def ap_fixed(self) -> str:
        """The vendor's name of the type, whose second figure counts the bits before the binary point.

        >>> Format(16, 10).ap_fixed
        'ap_fixed<16,6,AP_RND,AP_SAT>'
        """
        return f"ap_fixed<{self.bits},{self.bits - self.fraction},AP_RND,AP_SAT>"

    def integers(self, values: Any) -> Integers:
        """The integers that stand for real values; halves are rounded up."""
        scaled = np.floor(np.asarray(values, np.float64) * 2.0**self.fraction + 0.5)
        limit = 2.0 ** (self.bits - 1)
        return np.clip(scaled, -limit, limit - 1).astype(np.int64)

    def reals(self, integers: Integers) -> NDArray[np.float64]:
        """The real values that integers stand for."""
        return integers / 2.0**self.fraction


def fitting(bits: int, arrays: Iterable[Any]) -> Format:
    """The format of `bits` with the most binary places, up to 30, in which none of these values saturates."""
    largest = max((float(np.abs(values).max(initial=0)) for values in map(np.asarray, arrays)), default=0.0)
    fraction = MOST_FRACTION if largest == 0 else bits - 1 - math.ceil(math.log2(largest))
    fraction = min(fraction, MOST_FRACTION)
    if largest * 2.0**fraction > 2 ** (bits - 1) - 1:
        fraction -= 1
    return Format(bits, fraction)


def saturate(values: Integers, bits: int) -> Integers:
    """The nearest integers of `bits`."""
    return np.clip(values, -(1 << (bits - 1)), (1 << (bits - 1)) - 1)


def narrow(values: Integers, shift: int, bits: int) -> Integers:
    """Integers with `shift` fewer binary places, at least 1: rounded to the nearest, halves up, saturated to `bits`."""
    return saturate((values + (1 << (shift - 1))) >> shift, bits)
