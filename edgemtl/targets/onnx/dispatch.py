"""How experts get their tokens in a graph: the form that a target chooses, and what a router leaves for its experts.

There are three forms. `segments` sorts the tokens by expert and splits them where one expert's end and the next one's
begin: nothing is dropped and no place is empty, but the pieces' lengths depend on the image. `buckets` gives every
expert a capacity: every shape is known ahead, and the smallest gates beyond it are dropped (none where the capacity is
as large as the number of tokens). `masked` runs every expert on every token: the others are measured against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgemtl.spaces import expert_capacity

__all__ = ["DispatchPolicy", "Form", "Routed"]

Form = Literal["segments", "buckets", "masked"]


@dataclass(frozen=True)
class DispatchPolicy:
    """How experts get their tokens; `capacity` is a multiple of an even share, None means unlimited.

    Where the net itself bounds what an expert takes they get them in the form `bounded`, if one is given. A token's
    place among an expert's comes from one sort of as many as the expert takes where the target `scatters`; else nothing
    scatters, and all are sorted twice.
    """

    form: Form = "segments"
    capacity: float | None = None
    bounded: Form | None = None
    scatters: bool = False

    def expert_capacity(self, tokens: int, experts: int, top_k: int) -> int:
        """The most tokens that each expert takes in the form `buckets`."""
        return expert_capacity(self.capacity, tokens, experts, top_k)

    def limit(self, tokens: int, experts: int, top_k: int) -> int:
        """The most tokens that an expert can take: all of them, except in smaller buckets."""
        return self.expert_capacity(tokens, experts, top_k) if self.form == "buckets" and top_k < experts else tokens

    def form_within(self, limit: int, tokens: int) -> Form:
        """The form for experts of which each takes `limit` of an image's `tokens` by the net's own bound."""
        return self.form if self.bounded is None or limit >= tokens else self.bounded


@dataclass(frozen=True)
class Routed:
    """Names of a router's tensors, for the experts after it; each expert takes up to `expert_capacity` tokens.

    `mask` is 1 where a token goes to an expert; `order` has every expert's tokens in a column, largest gates first, and
    `ranks` the place of each token in it, if it is one of those. The last two are there only where something may be
    dropped or has its place.
    """

    experts: int
    top_k: int
    tokens: int
    form: Form
    expert_capacity: int
    values: str
    chosen: str = ""
    mask: str = ""
    order: str = ""
    ranks: str = ""
