from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from _scaled import net_of, scale_for, scaled_evenly

from edgemtl.spaces import Space, prunable_channels
from edgemtl.testing.landscape import PAIR, evaluate, space
from edgemtl.train import fresh_supernet


@pytest.fixture
def tiny(tmp_path: Path) -> Space:
    return space(tmp_path, PAIR)


def test_all_widths_shrink_by_one_factor(tiny: Space) -> None:
    largest = tiny.largest()
    half = scaled_evenly(largest, 0.5)
    before, after = prunable_channels(largest.plan), prunable_channels(half.plan)
    assert after == {name: max(8, 8 * round(count / 16)) for name, count in before.items()}
    assert half.cost().flops < largest.cost().flops
    assert scaled_evenly(largest, 1.0) == largest


def test_a_scaled_net_has_the_first_channels_of_the_supernet(tiny: Space) -> None:
    supernet = fresh_supernet(tiny, 0)
    net = net_of(supernet, scaled_evenly(tiny.largest(), 0.5))
    whole = dict(supernet.extract(tiny.largest()).named_parameters())
    for name, parameter in net.named_parameters():
        first = whole[name][tuple(slice(0, side) for side in parameter.shape)]
        assert torch.equal(parameter, first), name
    assert set(net(torch.zeros(1, 3, 64, 64))) == {"semseg", "depth"}


def test_a_scaled_net_meets_a_latency_and_is_never_the_faster_one(tiny: Space) -> None:
    largest = tiny.largest()
    wanted = 0.6 * evaluate(largest).latency_ms[""]

    def ratio(scale: float) -> float:
        return evaluate(scaled_evenly(largest, scale, 1)).latency_ms[""] / wanted

    scale = scale_for(ratio, tries=8)
    assert 1 <= ratio(scale) < 1.05
    assert ratio(0.95 * scale) < 1


@pytest.mark.parametrize(("speed", "scale"), [(0.5, 1.0), (100.0, pytest.approx(0.1, abs=0.02))])
def test_what_cannot_be_met_gets_the_nearest_end(speed: float, scale: float) -> None:
    assert scale_for(lambda factor: speed * float(np.square(factor)), 6) == scale
