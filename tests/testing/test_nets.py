from __future__ import annotations

import pytest

from edgemtl.models import TaskNet, load_module
from edgemtl.testing import TaskNetConformance, experts_net, grid_net, small_net
from edgemtl.testing.world import TASKS


class TestMultiTaskNet(TaskNetConformance):
    @pytest.fixture(params=[small_net, grid_net, lambda: experts_net(None)], ids=["cnn", "grid", "vit"])
    def net(self, request: pytest.FixtureRequest) -> TaskNet:
        net: TaskNet = request.param()
        return net


class TestModuleNet(TaskNetConformance):
    @pytest.fixture(params=["plain", "tied_side_by_side", "keeps_features"])
    def net(self, request: pytest.FixtureRequest) -> TaskNet:
        return load_module(f"odd_modules:{request.param}", TASKS, (64, 64))[0]
