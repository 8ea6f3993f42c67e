"""Hooks that see layers run, and are gone afterwards."""

import pytest
import torch
from torch import nn

from edgemtl.nas.prune.hooks import watched


def test_watched_layers_are_seen_by_name_with_what_they_read_and_give() -> None:
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    image = torch.randn(4, 2)
    seen = []
    with watched({"first": net[0], "last": net[2]}, lambda name, read, given: seen.append((name, read[0], given))):
        output = net(image)
    assert [name for name, _, _ in seen] == ["first", "last"]
    assert seen[0][1] is image and seen[1][2] is output
    net(image)
    assert len(seen) == 2


def test_hooks_are_gone_after_an_error_of_the_net() -> None:
    layer = nn.Linear(2, 3)
    with pytest.raises(RuntimeError), watched({"": layer}, lambda *given: None):
        layer(torch.randn(4, 5))
    assert not layer._forward_hooks
