"""The strategy `masks`: every task's mask learnt together with the weights, then draws of what was learnt, measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

from pydantic import JsonValue

from edgemtl.errors import UserError
from edgemtl.nas.search.strategies.mask_learning import MASKS, MaskRun
from edgemtl.nas.search.strategies.mask_sampler import MaskSampler
from edgemtl.nas.search.strategies.masks import mask_space
from edgemtl.nas.search.strategies.strategy import Needs, Preparation, Prepared, SamplerStrategy
from edgemtl.spaces import Space

__all__ = ["MaskStrategy"]

_SHARE = 0.5
"""Share of the whole net's FLOPs that masks are learnt for where no budget limits all tasks together."""


@dataclass(frozen=True)
class MaskStrategy:
    """Masks that are learnt in `steps` steps, from scratch or from a supernet that is given."""

    steps: int = MASKS.steps
    needs: ClassVar[Needs] = Needs(supernet=False)

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise UserError(f"{self.steps} steps given: strategy masks learns in 1 or more")

    def config(self, space: Space) -> Mapping[str, JsonValue]:
        """How it learns; `UserError` for a space without masks."""
        mask_space(space)
        recipe = replace(MASKS, steps=self.steps).as_json()
        return {name: value for name, value in recipe.items() if name != "seed"}  # the run has that already

    def prepare(self, preparation: Preparation) -> Prepared:
        """Learn the distributions, from the checkpoint if there is one, within the budgets that are counted."""
        space = preparation.space
        counted = [limit for limit in preparation.limits if limit.budget.quantity == "flops"]
        allowed_flops = {"": _SHARE * space.largest().cost().flops}
        allowed_flops |= {limit.budget.task or "": limit.value for limit in counted}
        learning = MaskRun(
            space,
            mask_space(space),
            preparation.evaluator.source,
            preparation.supernet,
            replace(MASKS, steps=self.steps, seed=preparation.seed),
            allowed_flops,
            preparation.folder,
        )
        return SamplerStrategy(partial(MaskSampler, distribution=learning.learn(preparation.report)))
