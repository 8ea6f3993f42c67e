"""A run for a device that is not this machine, from the search to engines that are made for others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chain import Here, make_workplace

from edgemtl.arithmetic import EXACT_INT8, lacking, own_arithmetic
from edgemtl.devices import load_device
from edgemtl.nas.runs import RunFolder

TINY = ("--space", "tiny", "--data", "data")
SEARCH = ("search", *TINY, "--supernet", "runs/supernet/supernet.safetensors", "--evaluations", "4", "--finetune", "0")
EXACT_HERE = not lacking([EXACT_INT8], own_arithmetic())


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("devices")
    make_workplace(made)
    return made


@pytest.fixture
def run(here: Here, workplace: Path) -> Path:
    """A run for a Raspberry Pi 5, made once."""
    made = workplace / "runs/pi"
    if not (made / "result.json").is_file():
        assert here("train", *TINY, "--steps", "4", "--batch", "4", "--sizes", "1", "--out", "runs/supernet")[0] == 0
        done = here(*SEARCH, "--budget", "70%FLOPs", "--device", "raspberry-pi-5", "--out", "runs/pi")
        assert done[0] == 0, done[2]
    return made


def record_of(bundle: Path) -> Any:
    return json.loads((bundle / "manifest.json").read_text())["targets"]["onnxruntime"]


def test_a_run_says_its_device_and_its_designs_are_not_timed_here(run: Path) -> None:
    device = json.loads((run / "config.json").read_text())["device"]
    assert (device["name"], device["arithmetic"]) == ("raspberry-pi-5", "arm-dot")
    assert json.loads((run / "result.json").read_text())["best"]["latency_ms"] is None
    assert RunFolder(run).target().scheme.activation == "int8"


def test_milliseconds_of_another_device_are_refused(here: Here, run: Path) -> None:
    status, _, error = here(*SEARCH, "--budget", "8ms", "--device", "x86-avx2", "--out", "runs/none")
    assert status == 1
    assert "budget '8ms': device x86-avx2 states no bandwidth and no peak of fp32 on its cpu" in error
    status, _, error = here(*SEARCH, "--budget", "70%FLOPs", "--device", "raspbery-pi-5", "--out", "runs/none")
    assert status == 1 and "did you mean raspberry-pi-5" in error


def test_a_run_is_exported_for_its_device_or_for_another(here: Here, run: Path, workplace: Path) -> None:
    assert here("export", "runs/pi", "--out", "bundles/pi")[0] == 0
    found = record_of(workplace / "bundles/pi")
    assert (found["device"], found["arithmetic"]) == ("raspberry-pi-5", "arm-dot")
    assert found["checked"] == ("engine" if EXACT_HERE or not found["needs"] else "simulation")
    status, shown, _ = here("export", "runs/pi", "--device", "x86-avx2", "--out", "bundles/old")
    assert status == 0
    assert f"run on {own_arithmetic()}" in shown
    found = record_of(workplace / "bundles/old")
    assert (found["device"], found["arithmetic"], found["needs"]) == ("x86-avx2", "avx2", [])


def test_a_run_is_exported_for_a_jetson_and_its_jetpack(here: Here, run: Path, workplace: Path) -> None:
    """Graphs for its TensorRT, and one clear line for a JetPack that is unknown, of another board or of no use."""
    board = ("export", "runs/pi", "--target", "tensorrt", "--device", "jetson-orin-nano")
    assert here(*board, "--jetpack", "6.2", "--out", "bundles/orin")[0] == 0
    manifest = json.loads((workplace / "bundles/orin/manifest.json").read_text())
    record = manifest["targets"]["tensorrt"]
    assert (record["device"], record["arithmetic"], record["checked"]) == ("jetson-orin-nano", "gpu", "simulation")
    assert record["hardware"] == "NVIDIA Jetson Orin Nano 8 GB with JetPack 6.2"
    alone = ("export", "runs/pi", "--target", "tensorrt", "--device", "jetson-orin-nx", "--jetpack", "6.2", "--dla")
    status, shown, _ = here(*alone, "--layout", "plain", "--tasks", "depth", "--out", "bundles/dla")
    build = json.loads((workplace / "bundles/dla/engines/tensorrt/build.json").read_text())
    assert status == 0 and f"the DLA takes {len(build['dla'])} of {len(build['blocks'])} blocks: stem" in shown
    assert build["files"] == {"model": "model.onnx"} and build["builds"][0]["dla"]
    for words, message in (
        ((*board, "--jetpack", "6.9"), "unknown JetPack '6.9'"),
        ((*board, "--jetpack", "7.1"), "JetPack 7.1 does not run on device jetson-orin-nano: give one of 5.1"),
        (("export", "runs/pi", "--jetpack", "6.2"), "JetPack 6.2 given for onnxruntime"),
    ):
        status, _, error = here(*words, "--out", "bundles/none")
        assert status == 1 and message in error and error.count("\n") == 1
    assert not (workplace / "bundles/none").exists()


def test_the_host_of_a_run_from_another_machine_is_not_this_one(
    here: Here, run: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its engines are for that machine, and the export says so."""
    elsewhere = "amx" if own_arithmetic() != "amx" else "avx-vnni"
    other = load_device("host").model_copy(update={"arithmetic": elsewhere})
    monkeypatch.setattr(RunFolder, "device", lambda self: other)
    status, _, notes = here("export", "runs/pi", "--target", "onnxruntime", "--out", "bundles/elsewhere")
    assert status == 0
    assert f"made on another machine ({elsewhere})" in notes and "--device host" in notes
    assert record_of(workplace / "bundles/elsewhere")["arithmetic"] == elsewhere
    words = ("export", "runs/pi", "--target", "onnxruntime", "--portable", "--out", "bundles/portable")
    status, _, notes = here(*words)
    assert status == 0
    assert "made on another machine" not in notes, "what is right everywhere needs no other device"
    words = ("prune", "runs/pi", "--design", "baseline", "--budget", "80%ms", "--fast", "--out", "runs/none")
    status, _, error = here(*words)
    assert status == 1
    assert f"made on another machine ({elsewhere}); for this one add --device host, or give FLOPs or MB" in error


def test_a_portable_export_says_what_it_costs(here: Here, run: Path, workplace: Path) -> None:
    status, shown, error = here("export", "runs/pi", "--device", "host", "--portable", "--out", "bundles/anywhere")
    assert status == 0, error
    found = record_of(workplace / "bundles/anywhere")
    assert (found["arithmetic"], found["needs"], found["checked"]) == ("other", [], "engine")
    cost = "What it costs to be portable" in shown
    assert cost == (found["own_parity"] is not None)
    assert cost or "no cost to tell" in shown
    status, shown, error = here(
        *("export", "runs/pi", "--target", "openvino", "--device", "host", "--portable", "--out", "bundles/anywhere")
    )
    assert status == 0, error
    costs = shown.partition("openvino: no cost to tell" if "openvino: no cost" in shown else "What it costs")
    assert costs[1] and "onnxruntime" not in costs[2].partition("FLOPs")[0], "that was told by the export before"


def test_a_run_is_pruned_for_another_device(here: Here, run: Path, workplace: Path) -> None:
    words = ("prune", "runs/pi", "--design", "baseline", "--budget", "80%FLOPs", "--fast", "--device", "x86-avx2")
    status, _, error = here(*words, "--out", "runs/narrow")
    assert status == 0, error
    assert RunFolder(workplace / "runs/narrow").device().name == "x86-avx2"
    assert RunFolder(workplace / "runs/narrow").target().scheme.weight_limit == 64
