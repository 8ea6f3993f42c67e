from __future__ import annotations

import pytest
from loopback import LoopbackBoard, free_port

from edgemtl.devices import Device, load_device
from edgemtl.profiling import Measurer, find_measurer
from edgemtl.testing import MeasurerConformance


class TestSsh(MeasurerConformance):
    @pytest.fixture
    def device(self, board: LoopbackBoard) -> Device:
        return load_device(board.url())

    @pytest.fixture
    def measurer(self, device: Device) -> Measurer:
        return find_measurer(device, self.target)

    @pytest.fixture
    def unreachable(self, device: Device) -> Measurer:
        reach = device.reach.model_copy(update={"port": free_port()})
        return find_measurer(device.model_copy(update={"reach": reach}), self.target)


@pytest.mark.slow
class TestSshWithOpenVino(TestSsh):
    target = "openvino"
