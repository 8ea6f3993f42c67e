"""A net that can be pruned, whatever it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgemtl.models import TaskNet
from edgemtl.nas.evaluation import Limit
from edgemtl.nas.prune.criterion import LossCriterion
from edgemtl.nas.prune.cut import Group
from edgemtl.nas.prune.groups import cut_channels
from edgemtl.spaces import Cost
from edgemtl.units import Budget

__all__ = ["Channels", "Prunable"]

Channels = Mapping[str, int]
"""How many channels a group keeps, by its name; one that is not named keeps all."""


@dataclass(frozen=True)
class Prunable:
    """A net, the groups of its channels, the criterion that decides, and what counts of channels cost.

    Counts are multiples of `multiple`. `cost` is that of all tasks, or of the one that is named. Sensitivities are kept
    in `map_file`, for whatever has the same `cache_key`.
    """

    net: TaskNet
    groups: Sequence[Group]
    criterion: LossCriterion
    multiple: int
    cost: Callable[[Channels, str | None], Cost]
    map_file: Path
    cache_key: Mapping[str, Any]

    def fewer(self, channels: Channels) -> dict[str, int]:
        """The counts of those groups that lose channels."""
        sizes = {group.name: group.size for group in self.groups}
        return {name: count for name, count in channels.items() if count < sizes[name]}

    def chosen(self, orders: Mapping[str, list[list[int]]], channels: Channels) -> dict[str, list[list[int]]]:
        """The channels that groups keep, part by part: the first of `orders`, most important first."""
        return {n: [sorted(order[:count]) for order in orders[n]] for n, count in self.fewer(channels).items()}

    def narrow(self, orders: Mapping[str, list[list[int]]], channels: Channels) -> TaskNet:
        """A copy of the net with the most important channels of each group; `recalibrate` it before it is used."""
        return cut_channels(self.net, self.groups, self.chosen(orders, channels))

    def amount(self, budget: Budget, channels: Channels) -> float:
        """Amount of a counted budget's quantity that the net with so many channels takes."""
        return self.cost(channels, budget.task).amount(budget.quantity)

    def shares(self, limits: Sequence[Limit], channels: Channels) -> list[float]:
        """Amount of each counted limit that the net with so many channels takes."""
        return [self.amount(limit.budget, channels) / limit.value for limit in limits if limit.exact] or [0.0]
