"""Draws near given designs: a supernet's training shifted to where a search found its front."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass

from edgemtl.spaces.choices import Choice, Option, Values
from edgemtl.spaces.plan import Plan
from edgemtl.spaces.space import Design, Space
from edgemtl.tasks import Task

__all__ = ["NearDesigns"]

_CHANGED = 0.15
"""The part of the choices that a draw moves by one option: three of this project's own twenty-two."""
_ANYWHERE = 0.25
"""The part of the draws that lie anywhere: options that no front has are unlearnt without."""


@dataclass(frozen=True)
class NearDesigns:
    """A space whose random designs lie near `designs`, each as often, but for a quarter; satisfies `DesignSource`.

    That quarter lies anywhere, so that no option is unlearnt. Other steps are spent on nets that a search would choose
    (after arXiv 2403.11380, which shifts a supernet to the front of a search while it goes on).
    """

    space: Space
    designs: tuple[Design, ...]

    @property
    def name(self) -> str:
        """The space's name."""
        return self.space.name

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The space's tasks."""
        return self.space.tasks

    @property
    def fingerprint(self) -> str:
        """That of the space: what is drawn changes what is learnt, not what the weights are of."""
        return self.space.fingerprint

    @property
    def drawn(self) -> str:
        """Hash of the designs that draws lie near."""
        return hashlib.sha256(json.dumps([dict(each) for each in self.designs]).encode()).hexdigest()

    def as_json(self) -> list[dict[str, Option]]:
        """The designs' architectures, as a supernet's file keeps them: a search begins with these."""
        kept = {choice.name for choice in self.architecture}
        return [{name: option for name, option in each.items() if name in kept} for each in self.designs]

    @property
    def architecture(self) -> tuple[Choice, ...]:
        """The space's choices, without precisions."""
        return self.space.architecture

    @property
    def stages(self) -> Mapping[str, str]:
        """The space's stages."""
        return self.space.stages

    def plan(self, values: Values) -> Plan:
        """The net that options mean."""
        return self.space.plan(values)

    def largest(self) -> Design:
        """The space's largest design."""
        return self.space.largest()

    def smallest(self) -> Design:
        """The space's smallest design."""
        return self.space.smallest()

    def random(self, rng: random.Random) -> Design:
        """One of the designs, some of its choices moved to an option beside their own; or any design of the space."""
        if rng.random() < _ANYWHERE:
            return self.space.random(rng)
        values = dict(rng.choice(self.designs))
        for choice in self.architecture:
            if choice.name in values and rng.random() < _CHANGED:
                values[choice.name] = _neighbour(choice, values[choice.name], rng)
        return self.space.design(values)


def _neighbour(choice: Choice, option: Option, rng: random.Random) -> Option:
    """The option before or after one, where there is one."""
    position = choice.options.index(option) + rng.choice((-1, 1))
    return choice.options[min(max(position, 0), len(choice.options) - 1)]
