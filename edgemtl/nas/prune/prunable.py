"""A net that can be pruned, whatever it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from torch import Tensor

from edgemtl.files.cache import cache_root
from edgemtl.models import TaskNet
from edgemtl.nas.evaluation import Limit
from edgemtl.nas.prune.compensation import RIDGE, compensate, input_products
from edgemtl.nas.prune.criterion import LossCriterion
from edgemtl.nas.prune.cut import Group, positions_kept
from edgemtl.nas.prune.elimination import elimination_order
from edgemtl.nas.prune.fitting import fitting_images
from edgemtl.nas.prune.groups import cut_channels
from edgemtl.progress import Report, silent
from edgemtl.spaces import Cost
from edgemtl.units import Budget

__all__ = ["Channels", "Prunable", "map_file_of"]

Channels = Mapping[str, int]
"""How many channels a group keeps, by its name; one that is not named keeps all."""


@dataclass(frozen=True)
class Prunable:
    """A net, the groups of its channels, the criterion that decides, and what counts of channels cost.

    Counts are multiples of `multiple`. `cost` is that of all tasks, or of the one that is named. Sensitivities are kept
    in `map_file`, for whatever has the same `cache_key`. With `products` of what its layers read (`input_products`)
    cuts are made up for in closed form.
    """

    net: TaskNet
    groups: Sequence[Group]
    criterion: LossCriterion
    multiple: int
    cost: Callable[[Channels, str | None], Cost]
    map_file: Path
    cache_key: Mapping[str, Any]
    products: Callable[[], Mapping[str, Tensor]] | None = None

    def compensated(self, report: Report = silent) -> Prunable:
        """The same, whose cuts are made up for: sensitivities are of such cuts, and weights no longer the net's own."""
        groups, key = self.groups, {**self.cache_key, "compensated": RIDGE}
        read = [m.module for group in groups for members in group.parts for m in members if not m.outputs]

        @cache
        def products() -> Mapping[str, Tensor]:
            return input_products(self.net, read, fitting_images(self.criterion.source), report)

        return replace(self, cache_key=key, map_file=map_file_of(key), products=products)

    def orders(self) -> dict[str, list[list[int]]]:
        """For every group and part its channels, the most important first.

        By the criterion; where cuts are made up for, by what is lost all the same, of groups whose readers are fitted.
        """
        orders = self.criterion.orders(self.net, self.groups)
        if self.products is not None:
            products = self.products()
            gradients = self.criterion.output_gradients(self.net, list(products))
            for group in self.groups:
                if (order := elimination_order(self.net, group, products, gradients)) is not None:
                    orders[group.name] = [order]
        return orders

    def fewer(self, channels: Channels) -> dict[str, int]:
        """The counts of those groups that lose channels."""
        sizes = {group.name: group.size for group in self.groups}
        return {name: count for name, count in channels.items() if count < sizes[name]}

    def chosen(self, orders: Mapping[str, list[list[int]]], channels: Channels) -> dict[str, list[list[int]]]:
        """The channels that groups keep, part by part: the first of `orders`, most important first."""
        return {n: [sorted(order[:count]) for order in orders[n]] for n, count in self.fewer(channels).items()}

    def narrow(self, orders: Mapping[str, list[list[int]]], channels: Channels) -> TaskNet:
        """A copy of the net with the most important channels of each group; `recalibrate` it before it is used."""
        cut = self.chosen(orders, channels)
        made = cut_channels(self.net, self.groups, cut)
        if self.products is not None:
            compensate(made, self.net, positions_kept(self.net, self.groups, cut), self.products())
        return made

    def amount(self, budget: Budget, channels: Channels) -> float:
        """Amount of a counted budget's quantity that the net with so many channels takes."""
        return self.cost(channels, budget.task).amount(budget.quantity)

    def shares(self, limits: Sequence[Limit], channels: Channels) -> list[float]:
        """Amount of each counted limit that the net with so many channels takes."""
        return [self.amount(limit.budget, channels) / limit.value for limit in limits if limit.exact] or [0.0]


def map_file_of(cache_key: Mapping[str, Any]) -> Path:
    """The file of the sensitivities of a net of one's own."""
    digest = hashlib.sha256(json.dumps(cache_key, sort_keys=True).encode()).hexdigest()[:16]
    return cache_root() / "prune_maps" / f"{digest}.json"
