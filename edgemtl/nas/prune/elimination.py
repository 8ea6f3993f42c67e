"""The order of channels by what is left of a layer's values without them, once what reads them makes up for it.

Channel by channel the one goes without which least is lost, given those that went before: the optimal brain surgeon
(Hassibi and Stork 1993) with channels in place of weights. What a layer gives wrongly counts by how much the tasks hear
of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from edgemtl.models import TaskNet
from edgemtl.nas.prune.compensation import RIDGE, rows_kept
from edgemtl.nas.prune.cut import Group, Member
from edgemtl.nas.prune.fitting import layer_of, weights_of

__all__ = ["elimination_order"]


def elimination_order(
    net: TaskNet, group: Group, products: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
) -> list[int] | None:
    """The channels of a group, those first that would go last; None where a layer that reads them cannot be fitted.

    `products` are of what layers of the whole net read (`input_products`), `gradients` the squares of
    what the tasks' losses change by with each of their outputs (`LossCriterion.output_gradients`).
    """
    readers = [member for members in group.parts for member in members if not member.outputs]
    fits = all(member.module in products and member.dimension is None for member in readers)
    if not readers or not fits or group.step > 1 or len(group.parts) > 1:
        return None
    states = [_State.of(net, member, products[member.module], gradients[member.module]) for member in readers]
    left, gone = list(range(group.size)), list[int]()
    while len(left) > 1:
        lost = torch.stack([state.lost_without(left) for state in states]).sum(0)
        channel = left.pop(int(lost.argmin()))
        for state in states:
            state.remove(channel)
        gone.append(channel)
    return left + gone[::-1]


@dataclass
class _State:
    """A layer that reads a group: the inverse of its products, its weights, and the rows of each channel in both."""

    inverse: Tensor
    weights: Tensor
    rows: Tensor

    @classmethod
    def of(cls, net: TaskNet, member: Member, square: Tensor, gradients: Tensor) -> _State:
        layer, positions = layer_of(net, member.module), dict[int, list[int]]()
        for position, channel in zip(member.positions, member.channels, strict=True):
            positions.setdefault(channel, []).append(position)
        rows = torch.stack([rows_kept(layer, positions[channel], bias=False) for channel in sorted(positions)])
        ridge = RIDGE * square.diagonal().mean().clamp(min=1e-12) * torch.eye(len(square), dtype=square.dtype)
        return cls(torch.linalg.inv(square + ridge), weights_of(layer) * gradients.double().sqrt(), rows)

    def lost_without(self, channels: Sequence[int]) -> Tensor:
        """The square of what is lost without each of these channels, weights of all others made anew."""
        rows = self.rows[list(channels)]
        weights = self.weights[rows]
        made_up: Tensor = torch.linalg.solve(self.inverse[rows[:, :, None], rows[:, None, :]], weights)
        return (weights * made_up).sum((1, 2))

    def remove(self, channel: int) -> None:
        """Make up for a channel that goes."""
        rows = self.rows[channel]
        along = torch.linalg.solve(self.inverse[rows][:, rows], self.inverse[rows])
        self.weights -= along.T @ self.weights[rows]
        self.inverse -= self.inverse[:, rows] @ along
