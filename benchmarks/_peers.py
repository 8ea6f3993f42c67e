"""torch-pruning as a peer of the pruning here: its magnitude and its Taylor criterion, round by round to a budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch_pruning
from torch import nn

__all__ = ["PEERS", "prune_by_peer"]

PEERS: dict[str, Callable[[], Any]] = {
    "magnitude": lambda: torch_pruning.importance.GroupMagnitudeImportance(p=2),
    "taylor": torch_pruning.importance.GroupTaylorImportance,
}


def prune_by_peer(
    net: nn.Module,
    example: torch.Tensor,
    importance: Any,
    rounds: int,
    enough: Callable[[], bool],
    gradients: Callable[[], None],
    slopes_every: int = 1,
    **options: Any,
) -> None:
    """Prune `net` in place in at most `rounds` equal steps, until `enough`.

    A criterion of slopes gets `gradients` before every `slopes_every`-th step. `options` are torch-pruning's own: what
    is left as it is, and the multiple of channels.
    """
    pruner = torch_pruning.pruner.BasePruner(
        net,
        example,
        importance=importance,
        global_pruning=True,
        pruning_ratio=0.95,
        max_pruning_ratio=0.875,
        iterative_steps=rounds,
        **options,
    )
    reads_slopes = isinstance(importance, torch_pruning.importance.GroupTaylorImportance)
    for number in range(rounds):
        if reads_slopes and number % slopes_every == 0:
            gradients()
        pruner.step()
        if enough():
            return
