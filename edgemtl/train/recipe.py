"""Settings of a supernet's training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

import torch

from edgemtl.errors import UserError
from edgemtl.train.speed import training_speed

__all__ = ["Recipe", "recipe_difference"]


@dataclass(frozen=True)
class Recipe:
    """Every number of a training run; together with the data and the space it fixes the result.

    `largest_steps` (a fraction) train the largest design alone before the sandwich begins: its widest, its smallest
    and `random_designs` others in every step (Yu and Huang 2019): each adds about half the work of the largest one.
    With `ends_every` N only one step in N of the sandwich trains its ends, the largest and the smallest; in the others
    the largest teaches and is left as it is, as a trained one is when a supernet is shrunk from it (Cai et al. 2020).
    `label_share` is the part of hard labels in a narrow design's loss, the rest is in-place distillation;
    `feature_weight` scales the distillation of features, which grows from 0 over the first tenth of the sandwich steps.

    Images grow as training goes on (progressive resizing, as Tan and Le 2021 do it): each of `sizes`, fractions of the
    input size, gets the same computation, so small images make most of the steps. `zoom` is the range of scales about
    that size. Weights are averaged with `average` per step. `bf16` None computes in BF16 where that is the faster on
    this machine (`edgemtl.train.speed`). `near` is the hash of the designs that random ones lie near, where they are
    not drawn anywhere; `taught_by` that of the weights of a teacher, where there is one. With `frozen_statistics` the
    batch norms of one net that is trained further keep the statistics that they have; else they take the batch's.
    """

    steps: int = 2000
    batch: int = 16
    sizes: tuple[float, ...] = (0.5, 0.67, 1.0)
    zoom: tuple[float, float] = (0.9, 1.4)
    learning_rate: float = 2.5e-3
    weight_decay: float = 0.02
    largest_steps: float = 0.475
    random_designs: int = 2
    ends_every: int = 1
    label_share: float = 0.5
    feature_weight: float = 0.5
    average: float = 0.995
    weighting: str = "equal"
    seed: int = 0
    bf16: bool | None = None
    near: str = ""
    taught_by: str = ""
    frozen_statistics: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers that cannot train anything."""
        if self.steps < 1 or self.batch < 2:
            raise UserError(
                f"training needs a step or more and a batch of 2 or more, given: {self.steps} and {self.batch}"
            )
        if not self.sizes or not all(0.25 <= size <= 2 for size in self.sizes):
            given = ",".join(f"{size:g}" for size in self.sizes)
            raise UserError(f"--sizes {given}: fractions of the input size are wanted, 0.25 to 2, as in 0.5,0.67,1")
        if len(self.zoom) != 2 or not 0.2 <= self.zoom[0] <= self.zoom[1] <= 5:
            given = ",".join(f"{scale:g}" for scale in self.zoom)
            raise UserError(f"--zoom {given}: two scales from 0.2 to 5 are wanted, the smaller first, as in 0.9,1.4")
        if not 0 <= self.random_designs <= 16:
            raise UserError(f"--random-designs {self.random_designs}: 0 to 16 are wanted")
        if not 1 <= self.ends_every <= 100:
            raise UserError(f"--ends-every {self.ends_every}: 1 to 100 steps are wanted")
        if not 0 < self.learning_rate < 1:
            raise UserError(f"--learning-rate {self.learning_rate}: a number above 0 and below 1 is wanted")

    def size_at(self, step: int) -> float:
        """The fraction of the input size at which a step sees images."""
        shares = [size**-2 for size in self.sizes]
        for size, end in zip(self.sizes, accumulate(shares), strict=True):
            if step < round(self.steps * end / sum(shares)):
                return size
        return self.sizes[-1]

    def rate_at(self, step: int) -> float:
        """The learning rate of a step: a linear warm-up over 3 % of the steps, then a cosine to 1 %."""
        warm = max(1, round(0.03 * self.steps))
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        done = (step - warm) / max(1, self.steps - warm)
        return self.learning_rate * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))

    def sandwich_at(self, step: int) -> bool:
        """Whether a step trains narrow designs."""
        return step >= self.largest_steps * self.steps

    def ends_at(self, step: int) -> bool:
        """Whether a step trains the largest design, and with it the smallest once the sandwich has begun."""
        return not self.sandwich_at(step) or step % self.ends_every == 0

    def work_at(self, step: int) -> float:
        """Compute of a step, as a multiple of the largest design at full size.

        A narrow design counts a half, a largest one that only teaches a third: it has no backward pass.
        """
        narrow = 1 + self.random_designs if self.sandwich_at(step) else 0
        return self.size_at(step) ** 2 * ((1 if self.ends_at(step) else 1 / 3) + narrow / 2)

    def computes_bf16(self) -> bool:
        """Whether to compute in BF16: as the recipe says, else where the hardware is faster at it."""
        if self.bf16 is not None:
            return self.bf16
        if torch.cuda.is_available():
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        return training_speed().prefers_bf16

    def as_json(self) -> dict[str, Any]:
        """The numbers as JSON values."""
        return {**asdict(self), "sizes": list(self.sizes), "zoom": list(self.zoom)}


def recipe_difference(stored: object, recipe: Mapping[str, Any]) -> str:
    """The numbers of a stored recipe that are others here, with both: `steps 60 (here 80)`; empty where none is."""
    before = stored if isinstance(stored, dict) else {}
    changed = [name for name in recipe if name in before and before[name] != recipe[name]]
    return ", ".join(f"{name} {_shown(before[name])} (here {_shown(recipe[name])})" for name in changed)


def _shown(value: object) -> str:
    """A number as the command line has it; of a hash its beginning."""
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return "none" if value in (None, "") else text[:12]
