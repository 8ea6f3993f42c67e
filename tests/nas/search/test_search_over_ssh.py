"""A board of one's own over ssh: a search's budget is measured there, and an export computes its parity there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import LoopbackBoard, need_sshd, write_device
from small_world import Ask

from edgemtl.arithmetic import own_arithmetic
from edgemtl.cli import main
from edgemtl.nas.search import search
from edgemtl.profiling import close_boards


@pytest.fixture
def board(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackBoard]:
    """A board that `profiles/my-board.yaml` says how to reach, and on which nothing is left after the test."""
    need_sshd()
    server = LoopbackBoard(tmp_path / "board").start()
    path = write_device(home, server.cable.port, own_arithmetic())
    monkeypatch.setenv("PATH", f"{server.folder / 'bin'}:{os.environ['PATH']}")
    yield server
    close_boards()
    path.unlink()
    assert server.left == []
    server.stop()


def test_a_search_is_timed_and_its_export_is_checked_on_the_board(
    ask: Ask, board: LoopbackBoard, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = search(ask(tmp_path / "run", budgets=("20s@my-board",), evaluations=2))
    assert result.best is not None and [check.text for check in result.best.limits] == ["20s@my-board"]
    latency = result.best.latency_ms
    assert latency is not None and latency.value > 0
    assert (latency.kind, latency.device, latency.runtime) == ("measured", "my-board", "onnxruntime")
    connections = board.cable.connections
    close_boards()
    assert main(["export", str(tmp_path / "run"), "--out", str(tmp_path / "bundle"), "--format", "json"]) == 0
    engine = json.loads(capsys.readouterr().out)["targets"]["onnxruntime"]
    assert (engine["device"], engine["checked"]) == ("my-board", "engine")
    assert board.cable.connections == connections + 1, "the export was not checked there"
