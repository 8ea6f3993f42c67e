"""An engine that the agent builds, stores and times on the board, whose Python has the bindings of TensorRT."""

from __future__ import annotations

import json
import os
import re
import shutil
import site
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import LoopbackBoard, need_sshd

from edgemtl.cli import main
from edgemtl.devices import load_device
from edgemtl.errors import UserError
from edgemtl.models.quantization import calibrate
from edgemtl.profiling import close_boards, profile
from edgemtl.runtime import EngineSpec
from edgemtl.targets import TensorRtTarget, find_target
from edgemtl.testing import images, small_net

NET = small_net("fused", widths=(16, 24))
SHELF = Path(__file__).parents[2] / "shelf"
VERSION = "10.3.0"
BINDINGS = f"""\
import sys
from tensorrt_fake import fake_tensorrt

sys.modules[__name__] = fake_tensorrt({VERSION!r})
"""
CUDA = """\
#include <stdlib.h>
#include <string.h>
int cudaStreamCreate(void **stream) { *stream = (void *)7; return 0; }
int cudaDeviceGetAttribute(int *value, int attribute, int device) {
  *value = attribute == 75 ? 8 : 7;
  return device;
}
int cudaMalloc(void **pointer, size_t count) { *pointer = malloc(count); return *pointer ? 0 : 2; }
int cudaMemcpyAsync(void *target, const void *source, size_t count, int direction, void *stream) {
  memcpy(target, source, count);
  return stream == (void *)7 && (direction == 1 || direction == 2) ? 0 : 1;
}
int cudaStreamSynchronize(void *stream) { return stream == (void *)7 ? 0 : 400; }
int cudaFree(void *pointer) { free(pointer); return 0; }
int cudaStreamDestroy(void *stream) { return stream == (void *)7 ? 0 : 400; }
"""


@pytest.fixture(scope="module")
def jetson(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackBoard]:
    """A board whose Python has the bindings of TensorRT among its packages, and CUDA's library beside."""
    need_sshd()
    if shutil.which("gcc") is None:
        pytest.skip("no gcc on this machine")
    folder = tmp_path_factory.mktemp("jetson")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    (packages,) = (folder / "venv").glob("lib/python*/site-packages")
    (packages / "own.pth").write_text("\n".join([*site.getsitepackages(), str(SHELF)]) + "\n")
    (packages / "tensorrt.py").write_text(BINDINGS)
    (folder / "cudart.c").write_text(CUDA)
    library = ["gcc", "-shared", "-fPIC", "-o", str(folder / "libcudart.so"), str(folder / "cudart.c")]
    subprocess.run(library, check=True)
    kept = {"LD_LIBRARY_PATH": str(folder), "EDGEMTL_CACHE": str(folder / "cache")}
    server = LoopbackBoard(folder / "board", kept).start()
    yield server
    server.stop()


@pytest.fixture
def url(jetson: LoopbackBoard, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Its address; nothing but the engines that are kept is left there after the test."""
    monkeypatch.setenv("PATH", f"{jetson.folder / 'bin'}:{os.environ['PATH']}")
    yield jetson.url(str(jetson.folder.parent / "venv/bin/python"))
    close_boards()
    assert jetson.left == []


def test_an_engine_is_built_kept_and_timed_by_layers_on_the_board(
    jetson: LoopbackBoard, url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = tmp_path / "engine"
    precision = {"engine": "fp16", **dict.fromkeys(NET.blocks, "int8")}
    find_target("tensorrt").build(NET, precision, calibrate(NET, images(2)), engine)
    measured = profile(engine, url, runs=10, threads=1)
    assert (measured.runtime, measured.device) == ("tensorrt", url)
    assert {mode.latency.kind for mode in measured.modes} == {"measured"}
    assert {mode.latency.n for mode in measured.modes} == {10}
    assert measured.operators is not None
    assert {share.name for share in measured.operators.by_unit} == {"gpu", "dla"}
    assert any(share.name == "fused: s1_1 + s1_2 + s2_1" for share in measured.operators.by_block)
    (plan,) = jetson.folder.parent.glob("cache/tensorrt/*/engine.plan")
    key = json.loads(plan.with_name("engine.key.json").read_text())
    assert (key["tensorrt"], key["gpu"]) == (VERSION, "unknown (sm_87)")
    before = plan.stat().st_mtime_ns
    profile(engine, url, runs=10, threads=1)
    assert plan.stat().st_mtime_ns == before, "it was built again"
    plan.with_name("engine.key.json").write_text(json.dumps({**key, "gpu": "unknown (sm_72)"}))
    assert main(["profile", str(engine), "--device", url, "--runs", "10", "--out", str(tmp_path / "again.json")]) == 0
    reason = r"is of gpu unknown \(sm_72\) \(here unknown \(sm_87\)\): it is built again"
    assert re.findall(rf"^note: board {url}: the engine in \S+ {reason}$", capsys.readouterr().err, re.MULTILINE)
    assert sorted(path.name for path in engine.iterdir()) == sorted(
        ["engine.json", *EngineSpec.read(engine).files.values()]
    )


def test_graphs_of_a_newer_jetpack_are_refused_by_the_board(url: str, tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    TensorRtTarget(load_device("jetson-agx-orin"), "7.2.2").build(NET, {"engine": "fp16"}, None, engine)
    with pytest.raises(UserError, match=rf"^board {url}: this board has TensorRT 10\.3\.0, .* need 11\.0 or newer: .*"):
        profile(engine, url, runs=10)
