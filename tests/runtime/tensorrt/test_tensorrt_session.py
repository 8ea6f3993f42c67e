"""Engines on a board, by fakes that refuse what each version's documentation rules out: build, store, run, profile."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tensorrt_fake import VERSIONS, FakeCuda, fake_tensorrt, write_board

from edgemtl.devices import load_device
from edgemtl.errors import UnsupportedError, UserError
from edgemtl.models.quantization import Ranges, calibrate
from edgemtl.runtime import EngineSpec
from edgemtl.runtime.tensorrt.board import available_bytes
from edgemtl.runtime.tensorrt.build import build, choose_settings, quiet_logger, workspace_bytes
from edgemtl.runtime.tensorrt.cuda import Cuda
from edgemtl.runtime.tensorrt.layers import inspect_layers, named_layer, time_of
from edgemtl.runtime.tensorrt.session import TensorRtSession, open_session
from edgemtl.targets import TensorRtTarget, find_target
from edgemtl.tasks import by_tensor
from edgemtl.testing import images, small_net

NET = small_net("fused", widths=(16, 24))
RANGES = calibrate(NET, images(4))
MIXED = {"engine": "fp16", **dict.fromkeys(NET.blocks, "int8")}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of engines for each test."""
    monkeypatch.setenv("EDGEMTL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "tensorrt"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An engine's folder as it is exported for any JetPack."""
    folder = tmp_path_factory.mktemp("engine")
    large = next(name for name in RANGES.limits if name.startswith("blocks.s2_1"))
    wide = Ranges({**RANGES.limits, large: (-9000.0, 9000.0)})
    find_target("tensorrt").build(NET, MIXED, wide, folder)
    return folder


def opened(
    folder: Path, trt: Any, monkeypatch: pytest.MonkeyPatch, root: Path, library: FakeCuda | None = None
) -> TensorRtSession:
    """The engine, opened on a board."""
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    return open_session(folder, EngineSpec.read(folder), 0, None, lambda: Cuda(library or FakeCuda()), root)


@pytest.mark.parametrize("version", VERSIONS)
def test_an_engine_is_built_and_every_subset_is_right(
    engine: Path, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt, library, image = fake_tensorrt(version), FakeCuda(), images(1)
    session = opened(engine, trt, monkeypatch, write_board(tmp_path), library)
    (made,) = trt.built
    assert made["typed"] == (not version.startswith("8"))
    assert made["flags"] == (["FP16", "INT8", "OBEY_PRECISION_CONSTRAINTS"] if version.startswith("8") else [])
    with torch.no_grad():
        expected = by_tensor(NET(image))
    for tasks in (["depth"], ["semseg", "normals"], ["depth", "semseg", "normals"]):
        outputs = by_tensor(session.run(image.numpy(), tasks))
        assert set(outputs) == set(tasks)
        for task, value in outputs.items():
            error = np.linalg.norm(value - expected[task].numpy())
            assert error < 0.3 * np.linalg.norm(expected[task].numpy())
    session.close()
    assert not library.live
    session.close()
    with pytest.raises(UserError, match="closed"):
        session.run(image.numpy(), ["depth"])


def test_what_fp16_cannot_hold_is_held_to_fp32_by_name_on_8(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trt = fake_tensorrt("8.5.2.2")
    opened(engine, trt, monkeypatch, write_board(tmp_path)).close()
    settings = EngineSpec.read(engine).options["builds"][0]
    assert set(trt.built[0]["held"]) == set(settings["fp32_nodes"]) != set()


def test_an_engine_is_built_once_and_again_for_what_differs(
    engine: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each difference is said in one line; timings of kernels are used again where GPU and version are the same."""
    root, trt = write_board(tmp_path), fake_tensorrt("10.3.0")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened(engine, trt, monkeypatch, root).close()
        opened(engine, trt, monkeypatch, root).close()
    assert len(trt.built) == 1 and trt.built[0]["cache"].content == b""
    write_board(tmp_path, mode="0002")
    with pytest.warns(RuntimeWarning, match=r"is of power mode 0000 \(here 0002\): it is built again"):
        opened(engine, trt, monkeypatch, root).close()
    assert trt.built[1]["cache"].content == b"timings"
    other = fake_tensorrt("10.3.0", gpu="sm_110")
    with pytest.warns(RuntimeWarning, match=r"is of gpu NVIDIA Jetson Orin Nano .* \(sm_87\) \(here .*sm_110\)"):
        opened(engine, other, monkeypatch, root, FakeCuda((11, 0))).close()
    assert other.built[0]["cache"].content == b""
    newer = fake_tensorrt("10.13.3", gpu="sm_110")
    with pytest.warns(RuntimeWarning, match=r"is of tensorrt 10\.3\.0 \(here 10\.13\.3\), another settings"):
        opened(engine, newer, monkeypatch, root, FakeCuda((11, 0))).close()
    (plan,) = own_cache.rglob("engine.plan")
    for damaged, content in ((plan, b"another plan"), (plan.with_name("engine.key.json"), b"[]")):
        damaged.write_bytes(content)
        with pytest.warns(RuntimeWarning, match=r"is damaged: it is built again"):
            opened(engine, newer, monkeypatch, root, FakeCuda((11, 0))).close()


def test_a_plan_of_another_gpu_is_refused_by_what_tensorrt_says(engine: Path, tmp_path: Path) -> None:
    here, there = fake_tensorrt("10.3.0"), fake_tensorrt("10.3.0", gpu="sm_72")
    spec, logger = EngineSpec.read(engine), quiet_logger(there)
    settings = choose_settings(spec.options["builds"], here.__version__)
    model = spec.file(engine, settings["graph"]).read_bytes()
    plan, _ = build(here, quiet_logger(here), model, settings, 1 << 26, b"")
    with pytest.raises(UnsupportedError, match=r"TensorRT 10\.3\.0 does not open the engine: .* on sm_87"):
        TensorRtSession(spec, there, Cuda(FakeCuda()), plan, logger)


def test_a_tensorrt_that_is_too_old_for_the_graphs_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "engine"
    TensorRtTarget(load_device("jetson-orin-nano"), "6.2").build(NET, {"engine": "fp16"}, None, folder)
    with pytest.raises(UnsupportedError, match=r"TensorRT 8\.5\.2\.2, .* need 10\.0 or newer: .*--jetpack"):
        opened(folder, fake_tensorrt("8.5.2.2"), monkeypatch, write_board(tmp_path))


@pytest.mark.parametrize("version", ["8.5.2.2", "11.4.1"])
def test_settings_of_another_generation_do_not_build(engine: Path, version: str) -> None:
    """The fakes refuse what the versions do: flags that are gone, and ones that are not there yet."""
    trt, spec = fake_tensorrt(version), EngineSpec.read(engine)
    wrong = dict(spec.options["builds"][0 if version.startswith("11") else -1])
    model = spec.file(engine, wrong["graph"]).read_bytes()
    with pytest.raises(AttributeError, match=r"EXPLICIT_BATCH|STRONGLY_TYPED"):
        build(trt, quiet_logger(trt), model, wrong, 1 << 26, b"")


def test_a_refusal_by_parser_or_builder_is_one_line(engine: Path) -> None:
    trt, spec = fake_tensorrt("8.5.2.2"), EngineSpec.read(engine)
    weak, strong = spec.options["builds"][0], spec.options["builds"][1]
    typed = spec.file(engine, strong["graph"]).read_bytes()
    with pytest.raises(UnsupportedError, match=r"^TensorRT 8\.5\.2\.2 refuses node 0: opset 19 is not read$"):
        build(trt, quiet_logger(trt), typed, weak, 1 << 26, b"")
    model = spec.file(engine, weak["graph"]).read_bytes()
    with pytest.raises(UnsupportedError, match=r"cannot build the engine: int8 is not enabled"):
        build(trt, quiet_logger(trt), model, {**weak, "builder_flags": []}, 1 << 26, b"")
    newer = fake_tensorrt("10.3.0")
    with pytest.raises(UnsupportedError, match=r"flags of precision on a strongly typed network$"):
        build(newer, quiet_logger(newer), typed, {**strong, "builder_flags": ["INT8"]}, 1 << 26, b"")


@pytest.mark.parametrize(("version", "fused"), [("8.5.2.2", ("s1_1", "s2_1")), ("10.3.0", ("s1_1", "s1_2", "s2_1"))])
def test_times_of_layers_say_which_blocks_are_in_them_and_what_ran_them(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, fused: tuple[str, ...]
) -> None:
    """8.5 names the ends of a region alone; a copy between units is no operator of the net."""
    session = opened(engine, fake_tensorrt(version), monkeypatch, write_board(tmp_path))
    session.spec.options["dla"] = ["stem", "s1_1"]  # type: ignore[index]
    first, second, third = session.operator_times(images(1).numpy(), ["depth"], 4)
    assert (first.op, first.block, first.mean_ms) == ("CaskConvolution, fused", "stem", 0.5)
    assert (first.fused, first.unit) == ((), "gpu (fallback)")
    assert (second.op, second.block, second.mean_ms) == ("DLA, fused", "", 0.25)
    assert (second.fused, second.unit) == (fused, "dla")
    assert (third.op, third.block, third.fused, third.unit) == ("Reformat", "", (), "gpu")
    session.close()


@pytest.mark.parametrize(
    "content", ["no JSON", "[]", '{"Layers": ["blocks.stem.conv"]}', '{"Layers": [{"LayerType": 1}]}']
)
def test_an_inspector_that_tells_nothing_leaves_names(content: str) -> None:
    class Engine:
        def create_engine_inspector(self) -> Engine:
            return self

        def get_engine_information(self, format: Any) -> str:
            return content

    assert inspect_layers(fake_tensorrt("10.3.0"), Engine()) == {}
    layer = named_layer("blocks.stem.conv + blocks.stem.act")
    assert layer.blocks == ("stem",) and time_of("x", layer, 1.0, ()).op == "layer, fused"


def test_no_memory_on_the_device_is_one_line(engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedError, match=r"CUDA's cudaMalloc failed with status 2"):
        opened(engine, fake_tensorrt("10.3.0"), monkeypatch, write_board(tmp_path), FakeCuda(free_bytes=16))


def test_the_workspace_is_a_quarter_of_what_is_free_within_bounds(tmp_path: Path) -> None:
    assert available_bytes(write_board(tmp_path)) == 4_000_000 * 1024
    assert workspace_bytes(400 << 20) == 100 << 20
    assert workspace_bytes(0) == 16 << 20 and workspace_bytes(64 << 30) == 1 << 30
    assert available_bytes(tmp_path / "nowhere") == 0


def test_what_a_key_holds_stands_beside_the_engine(
    engine: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(engine, fake_tensorrt("10.3.0"), monkeypatch, write_board(tmp_path)).close()
    (path,) = own_cache.rglob("engine.key.json")
    key = json.loads(path.read_text())
    assert key["gpu"] == "NVIDIA Jetson Orin Nano Developer Kit (sm_87)"
    assert (key["tensorrt"], key["system"], key["power_mode"]) == ("10.3.0", "Jetson Linux 36.4.3", "0000")
    assert len(key["graph"]) == 64 and len(key["plan"]) == 64
    assert not [path for path in engine.iterdir() if path.name not in ("engine.json", "model.onnx", "model-fp16.onnx")]
