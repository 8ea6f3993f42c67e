from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from loopback import LoopbackBoard, need_sshd

from edgemtl.profiling import close_boards


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackBoard]:
    need_sshd()
    server = LoopbackBoard(tmp_path_factory.mktemp("board")).start()
    yield server
    server.stop()


@pytest.fixture
def board(server: LoopbackBoard, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackBoard]:
    """A board that `ssh` finds, and on which nothing is left after the test."""
    monkeypatch.setenv("PATH", f"{server.folder / 'bin'}:{os.environ['PATH']}")
    yield server
    close_boards()
    assert server.left == []
