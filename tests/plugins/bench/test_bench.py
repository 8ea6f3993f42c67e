"""A measurer in a file of its own: a device behind a socket is searched for, exported for and profiled."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chain import environment, make_workplace
from plugged import install

from edgemtl.arithmetic import own_arithmetic
from edgemtl.devices import load_device
from edgemtl.profiling import Measurer, find_measurer, measurer_names
from edgemtl.testing import MeasurerConformance

MODULE = Path(__file__).with_name("bench_measurer.py")
DEVICE = """\
schema: edgemtl.device/1
name: {name}
title: A board behind a socket
kind: board
precisions: [fp32, int8]
arithmetic: {arithmetic}
runtimes: [{{name: onnxruntime, precisions: [fp32, int8]}}]
measurer: bench
reach: {{host: 127.0.0.1, port: {port}}}
"""
TINY = ("--space", "tiny", "--data", "data")
Command = Callable[..., tuple[int, Any, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with data, a space and a device whose server runs, and the plug-in installed."""
    folder, site = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("site")
    make_workplace(folder)
    install(site, "edgemtl.measurers", "bench = bench_measurer:BenchMeasurer", MODULE.read_text())
    env = environment(folder)
    with (
        pytest.MonkeyPatch.context() as patch,
        subprocess.Popen([sys.executable, str(MODULE)], stdout=subprocess.PIPE, text=True, env=env) as server,
    ):
        assert server.stdout is not None
        (folder / "profiles").mkdir()
        for name, port in (("board", int(server.stdout.readline())), ("gone", 1)):
            text = DEVICE.format(name=name, arithmetic=own_arithmetic(), port=port)
            (folder / "profiles" / f"{name}.yaml").write_text(text)
        patch.syspath_prepend(str(site))
        patch.chdir(folder)
        for name in ("COLUMNS", "EDGEMTL_CACHE"):
            patch.setenv(name, env[name])
        yield folder
        server.terminate()


@pytest.fixture
def run(command: Command, home: Path) -> Path:
    """A run with limits in ms of the board, made once."""
    if not (home / "runs/board/result.json").is_file():
        trained = command("train", *TINY, "--steps", "4", "--batch", "4", "--sizes", "1", "--out", "runs/supernet")
        assert trained[0] == 0, trained[2]
        words = (*TINY, "--supernet", "runs/supernet/supernet.safetensors", "--evaluations", "2", "--finetune", "0")
        limits = ("--budget", "500%ms@board", "--budget", "depth:1s")
        searched = command("search", *words, *limits, "--device", "board", "--out", "runs/board")
        assert searched[0] == 0, searched[2]
    return home / "runs/board"


class TestBench(MeasurerConformance):
    @pytest.fixture
    def measurer(self, home: Path) -> Measurer:
        return find_measurer(load_device("board"), self.target)

    @pytest.fixture
    def unreachable(self, home: Path) -> Measurer:
        return find_measurer(load_device("gone"), self.target)


def test_a_search_measures_on_the_board(run: Path, command: Command) -> None:
    best = json.loads((run / "result.json").read_text())["best"]
    assert best["latency_ms"]["value"] > 0
    assert (best["latency_ms"]["kind"], best["latency_ms"]["device"]) == ("measured", "board")
    assert [limit["text"] for limit in best["limits"]] == ["500%ms@board", "depth:1s"]
    assert find_measurer(load_device("board"), "onnxruntime").ask("count") == 0, "every engine was closed"  # type: ignore[attr-defined]


def test_an_export_is_checked_on_the_board_and_profiled_there(run: Path, command: Command) -> None:
    status, manifest, error = command("export", str(run), "--out", "bundles/board")
    assert status == 0, error
    engine = manifest["targets"]["onnxruntime"]
    assert (engine["device"], engine["checked"]) == ("board", "engine")
    status, found, error = command("profile", "bundles/board", "--device", "board", "--runs", "20")
    assert status == 0, error
    assert (found["device"], found["opening"], found["stability"]["throttled"]) == ("board", None, "unknown")
    assert found["modes"][0]["latency"]["device"] == "board"
    assert len(found["modes"][0]["latency"]["samples_ms"]) == 20


def test_a_board_that_is_switched_off_is_said_in_one_line(run: Path, command: Command) -> None:
    status, _, error = command("profile", "bundles/board", "--device", "gone")
    assert status == 1
    assert error.startswith("error: device gone at 127.0.0.1:1 cannot be reached")
    assert error.count("\n") == 1


def test_latencies_of_another_device_than_the_searched_for_are_refused(command: Command) -> None:
    words = ("search", *TINY, "--supernet", "runs/supernet/supernet.safetensors", "--out", "runs/none")
    status, _, error = command(*words, "--budget", "8ms@host", "--device", "board")
    assert status == 1
    assert "budget '8ms@host': latencies are those of device board here; drop @host, or give --device host" in error


def test_it_is_listed(home: Path, command: Command) -> None:
    assert measurer_names() == ["bench", "local", "none", "ssh"]
    assert command("devices", "board")[1][0]["measurer"] == "bench"
