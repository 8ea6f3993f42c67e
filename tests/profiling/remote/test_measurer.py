from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from loopback import LoopbackBoard, free_port, need_sshd

from edgemtl.devices import Device, load_device
from edgemtl.profiling import Measurer, close_boards, find_measurer
from edgemtl.testing import MeasurerConformance


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackBoard]:
    need_sshd()
    board = LoopbackBoard(tmp_path_factory.mktemp("board")).start()
    yield board
    board.stop()


@pytest.fixture
def device(board: LoopbackBoard, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    monkeypatch.setenv("PATH", f"{board.folder / 'bin'}:{os.environ['PATH']}")
    yield load_device(board.url())
    close_boards()
    assert board.left == []


class TestSsh(MeasurerConformance):
    @pytest.fixture
    def measurer(self, device: Device) -> Measurer:
        return find_measurer(device, self.target)

    @pytest.fixture
    def unreachable(self, device: Device) -> Measurer:
        reach = device.reach.model_copy(update={"port": free_port()})
        return find_measurer(device.model_copy(update={"reach": reach}), self.target)


class TestSshWithOpenVino(TestSsh):
    target = "openvino"
