"""The mathematics of the strategy `masks`: a distribution over masks for every task, learnt from shared passes.

FBNetV5 (Wu et al. 2021) gives each task independent Bernoulli variables over the trunk's blocks, and learns them all
from the losses of shared passes: REINFORCE with importance sampling, so that a step costs the same for any number of
tasks. What the paper leaves open is ours: architectures come from the even mixture of all tasks' distributions, so no
importance weight exceeds the number of tasks; the baseline of an architecture is the mean loss of the step's others on
the same images; the effect of each position alone, estimated from earlier steps, is a linear control variate, whose
gradient is exact; the expected cost is analytic, so it adds no variance, and its price follows the exact cost of the
likeliest design, in which what tasks share counts once; an entropy bonus fades to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import UserError
from edgemtl.spaces import KEEP, SKIP, Option, Space, mask_name

__all__ = [
    "LinearControlVariate",
    "MaskDistribution",
    "MaskSpace",
    "as_json",
    "cost_gradient",
    "draw",
    "dual_ascent_step",
    "effective_samples",
    "entropy_gradient",
    "importance",
    "keep_above",
    "log_probabilities",
    "mask_space",
    "policy_gradient",
    "probabilities",
    "share_prefix",
]

Array = NDArray[np.float64]
_MARGIN = 0.02
"""Probabilities stay this far from 0 and 1, so that a block may come back."""
_FADING, _RIDGE = 0.99, 10.0
"""Decay of a step's weight in the next one's regression, and the ridge penalty in it, in architectures."""


@dataclass(frozen=True)
class MaskSpace:
    """The choices of a space that keep or skip: `positions` of the trunk by tasks.

    `present` (tasks, positions) tells which task may choose where. `flops` (tasks, positions) is what keeping a place
    adds to a task's path, scaled so that all of them with `base_flops` (tasks,), the path that skips all, make the
    whole path.
    """

    tasks: tuple[str, ...]
    positions: tuple[str, ...]
    present: NDArray[np.bool_]
    flops: Array
    base_flops: Array

    def values(self, mask: NDArray[np.bool_]) -> dict[str, Option]:
        """Options of masks (tasks, positions), or of one mask (positions,) for all tasks."""
        each = np.broadcast_to(mask, self.present.shape)
        return {
            mask_name(task, position): KEEP if each[row, column] else SKIP
            for row, task in enumerate(self.tasks)
            for column, position in enumerate(self.positions)
            if self.present[row, column]
        }


@dataclass(frozen=True)
class MaskDistribution:
    """The learnt distribution: log-odds (tasks, positions) of keeping a position."""

    space: MaskSpace
    logits: Array


def mask_space(space: Space) -> MaskSpace:
    """The masks of a space; raises `UserError` where it has none."""
    masked = [choice for choice in space.choices if choice.mask_of]
    if not masked:
        raise UserError(
            f"space {space.name} has nothing that a task may keep or skip: strategy masks needs one that has, as grid"
        )
    tasks = tuple(task.name for task in space.tasks)
    positions = tuple(dict.fromkeys(choice.mask_of for choice in masked))
    names = {choice.name for choice in masked}
    present = np.array([[mask_name(task, position) in names for position in positions] for task in tasks])
    flops, base = np.zeros(present.shape), np.zeros(len(tasks))
    largest, smallest = space.largest(), space.smallest()
    for row, task in enumerate(tasks):
        whole = largest.cost([task]).flops
        base[row] = smallest.cost([task]).flops
        for column in np.flatnonzero(present[row]):
            less = space.design({**largest, mask_name(task, positions[column]): SKIP})
            flops[row, column] = whole - less.cost([task]).flops
        flops[row] *= (whole - base[row]) / max(flops[row].sum(), 1.0)
    return MaskSpace(tasks, positions, present, flops, base)


def probabilities(logits: Array, present: NDArray[np.bool_]) -> Array:
    """Probability (tasks, positions) of keeping; where a task may not choose, the mean of those that may."""
    chosen = np.clip(1 / (1 + np.exp(-logits)), _MARGIN, 1 - _MARGIN)
    mean = (chosen * present).sum(0) / np.maximum(present.sum(0), 1)
    return np.where(present, chosen, mean)


def draw(chances: Array, count: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """`count` architectures (count, positions) of the mixture q = mean over tasks of p_task."""
    rows = chances[rng.integers(len(chances), size=count)]
    return np.asarray(rng.random(rows.shape) < rows)


def log_probabilities(chances: Array, masks: NDArray[np.bool_]) -> Array:
    """log p_task(architecture), (architectures, tasks)."""
    return np.asarray(masks @ np.log(chances).T + ~masks @ np.log1p(-chances).T)


def importance(log_p: Array) -> Array:
    """Importance weights p_task / q, (architectures, tasks): from 0 to the number of tasks, 1 on average over q."""
    most = log_p.max(1, keepdims=True)
    log_q = most + np.log(np.exp(log_p - most).mean(1, keepdims=True))
    return np.asarray(np.exp(log_p - log_q))


def effective_samples(weights: Array) -> Array:
    """Kish's effective sample size of each task, (tasks,): how many of the architectures count for it."""
    squares = np.square(weights).sum(0)
    return np.asarray(np.square(weights.sum(0)) / np.maximum(squares, 1e-12))


@dataclass(frozen=True)
class LinearControlVariate:
    """Effect of keeping a position on each task's loss, by ridge regression over earlier steps, which decay.

    Masks and losses are taken less their mean of a step, so that learning weights, and easy images, explain nothing.
    `moments` (positions, positions) and `products` (positions, tasks) are all that is kept of them.
    """

    moments: Array
    products: Array

    @classmethod
    def none(cls, positions: int, tasks: int) -> LinearControlVariate:
        """Before the first step."""
        return cls(np.zeros((positions, positions)), np.zeros((positions, tasks)))

    def seen(self, masks: NDArray[np.bool_], losses: Array) -> LinearControlVariate:
        """After one more step: masks (architectures, positions) and their losses (architectures, tasks)."""
        centred, changes = masks - masks.mean(0), losses - losses.mean(0)
        return LinearControlVariate(
            _FADING * self.moments + centred.T @ centred, _FADING * self.products + centred.T @ changes
        )

    def coefficients(self) -> Array:
        """Change of each task's loss by keeping a position, (tasks, positions)."""
        return np.asarray(np.linalg.solve(self.moments + _RIDGE * np.eye(len(self.moments)), self.products).T)


def policy_gradient(
    chances: Array, masks: NDArray[np.bool_], weights: Array, losses: Array, coefficients: Array | float = 0.0
) -> Array:
    """Gradient (tasks, positions) of each task's expected loss by its logits: REINFORCE with leave-one-out baselines.

    `losses` (architectures, tasks) are of the same images; at least two architectures are needed. For a Bernoulli
    variable the gradient of log p by its logit is the draw less its probability. The part of the losses that is linear
    in the masks, by `coefficients` (tasks, positions) that do not come from these losses, is taken out of the
    samples and its exact gradient added.
    """
    coefficients = np.broadcast_to(coefficients, chances.shape)
    count, left = len(losses), losses - masks @ coefficients.T
    others = (left.sum(0) - left) / (count - 1)
    advantage = weights * (left - others) / count
    sampled = np.einsum("gt,gtb->tb", advantage, masks[:, None, :] - chances[None])
    return np.asarray(sampled + coefficients * chances * (1 - chances))


def cost_gradient(chances: Array, space: MaskSpace, prices: Array) -> Array:
    """Gradient (tasks, positions) of the price of each task's expected path by the logits.

    `prices` (tasks,) are for keeping everything that a task may skip; a part of it costs its share.
    """
    shares = space.flops / np.maximum(space.flops.sum(1, keepdims=True), 1e-12)
    return np.asarray(prices[:, None] * shares * chances * (1 - chances))


def dual_ascent_step(prices: Array, space: MaskSpace, used: Mapping[str, float], rate: float) -> Array:
    """Prices (tasks,) after a step of dual ascent: up where more than a limit is used, down where less, 0 at least.

    `used` says what each limit is used of, by the task whose own it is, "" for that of all together; the limit that is
    tightest for a task counts.
    """
    excess = [max(share for name, share in used.items() if name in ("", task)) - 1 for task in space.tasks]
    return np.maximum(prices + rate * np.clip(excess, -1.0, 1.0), 0.0)


def entropy_gradient(chances: Array) -> Array:
    """Gradient (tasks, positions) of minus the entropy by the logits: towards one half where it is descended."""
    return np.asarray(np.log(chances / (1 - chances)) * chances * (1 - chances))


def keep_above(distribution: MaskDistribution, price: float | Array) -> NDArray[np.bool_]:
    """Masks (tasks, positions) that keep what is worth its `price` in log-odds for the mean position's FLOPs.

    A position costs every task the same, so that tasks with equal log-odds keep the same. At no price, and with noise
    of the logistic distribution in the log-odds, this is a draw of every task's distribution.
    """
    space = distribution.space
    flops = (space.flops * space.present).sum(0) / np.maximum(space.present.sum(0), 1)
    relative = flops / max(flops.mean(), 1e-12)
    return np.asarray((distribution.logits - price * relative > 0) & space.present)


def share_prefix(distribution: MaskDistribution, share: float) -> MaskDistribution:
    """The same with the mean of all tasks' log-odds for the first `share` of the positions.

    Positions are in the order of execution, and what tasks keep alike from the image on is computed once: the more they
    agree on, the wider the paths that a budget allows.
    """
    space = distribution.space
    shared = np.arange(len(space.positions)) < share * len(space.positions)
    mean = np.where(space.present, distribution.logits, 0.0).sum(0) / np.maximum(space.present.sum(0), 1)
    return MaskDistribution(space, np.where(shared, mean, distribution.logits))


def as_json(distribution: MaskDistribution) -> dict[str, dict[str, float]]:
    """Probabilities of keeping, by task and position."""
    space, chances = distribution.space, probabilities(distribution.logits, distribution.space.present)
    table: dict[str, dict[str, float]] = {task: {} for task in space.tasks}
    for row, column in zip(*np.nonzero(space.present), strict=True):
        table[space.tasks[row]][space.positions[column]] = round(float(chances[row, column]), 4)
    return table
