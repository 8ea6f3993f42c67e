"""A target in a file of its own, with its runtime and a quantity that it counts: from the search to a run."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chain import environment, make_workplace
from plugged import install

from edgemtl.devices import load_device
from edgemtl.nas.runs import RunFolder
from edgemtl.targets import find_target
from edgemtl.testing import TargetConformance
from edgemtl.units import format_quantity

MODULE = Path(__file__).with_name("reference_target.py")
ENTRIES = {
    "edgemtl.targets": "reference = reference_target:ReferenceTarget",
    "edgemtl.runtimes": "onnx-reference = reference_target:open_session",
    "edgemtl.quantities": "luts = reference_target:LUT",
}
DEVICE = """\
schema: edgemtl.device/1
name: fabric
title: A board that is not here
kind: board
precisions: [fp32]
runtimes: [{name: onnx-reference, precisions: [fp32]}]
"""
TINY = ("--space", "tiny", "--data", "data")
Command = Callable[..., tuple[int, Any, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with data, a space and a device, and the plug-in installed."""
    folder, site = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("site")
    make_workplace(folder)
    (folder / "profiles").mkdir()
    (folder / "profiles" / "fabric.yaml").write_text(DEVICE)
    for group, entry in ENTRIES.items():
        install(site, group, entry, MODULE.read_text())
    env = environment(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        patch.chdir(folder)
        patch.setenv("PYTHONPATH", f"{site}{os.pathsep}{env['PYTHONPATH']}")  # for processes that edgemtl starts
        for name in ("COLUMNS", "EDGEMTL_CACHE"):
            patch.setenv(name, env[name])
        yield folder


@pytest.fixture
def run(command: Command, home: Path) -> Path:
    """A run under a limit in lookup tables, made once."""
    if not (home / "runs/fabric/result.json").is_file():
        trained = command("train", *TINY, "--steps", "4", "--batch", "4", "--sizes", "1", "--out", "runs/supernet")
        assert trained[0] == 0, trained[2]
        words = (*TINY, "--supernet", "runs/supernet/supernet.safetensors", "--evaluations", "4", "--finetune", "0")
        limits = ("--budget", "60%LUT", "--budget", "depth:90kLUT", "--target", "reference", "--device", "fabric")
        searched = command("search", *words, *limits, "--out", "runs/fabric")
        assert searched[0] == 0, searched[2]
    return home / "runs/fabric"


class TestReference(TargetConformance):
    @pytest.fixture(autouse=True)
    def found(self, home: Path) -> None:
        self.target = find_target("reference")


def test_a_search_keeps_a_limit_in_the_targets_own_quantity(run: Path) -> None:
    best = json.loads((run / "result.json").read_text())["best"]
    share, own = best["limits"]
    assert (share["text"], share["quantity"], share["kept"]) == ("60%LUT", "luts", True)
    design, space = RunFolder(run).load("best").design, RunFolder(run).space()
    assert share["value"] == design.cost().amount("luts") == pytest.approx(design.cost().flops * 2 / 1024)
    assert share["allowed"] == pytest.approx(0.6 * space.largest().cost().amount("luts"))
    assert own["value"] == design.cost("depth").amount("luts") < share["value"]
    assert format_quantity("luts", 1234.0) == "1.23 kLUT (estimated)"


def test_its_engine_is_held_against_the_net_profiled_and_run(run: Path, command: Command, home: Path) -> None:
    status, manifest, error = command("export", str(run), "--out", "bundles/reference")
    assert status == 0, error
    engine = manifest["targets"]["reference"]
    assert (engine["runtime"], engine["checked"], engine["device"]) == ("onnx-reference", "engine", "fabric")
    status, profile, error = command("profile", "bundles/reference", "--runs", "10", "--tasks", "depth")
    assert status == 0, error
    assert profile["target"] == "reference" and profile["modes"][0]["latency"]["p50_ms"] > 0
    photo = next((home / "data/images/test").iterdir())
    status, _, error = command("run", "bundles/reference", str(photo), "--out", "shown")
    assert status == 0, error


def test_it_is_pruned_under_its_own_quantity(run: Path, command: Command) -> None:
    words = ("--design", "baseline", "--budget", "80%LUT", "--fast", "--out", "runs/pruned")
    status, result, error = command("prune", str(run), *words)
    assert status == 0, error
    (limit,) = result["best"]["limits"]
    assert (limit["quantity"], limit["kept"]) == ("luts", True)


def test_another_target_does_not_count_it(command: Command) -> None:
    words = ("search", *TINY, "--supernet", "runs/supernet/supernet.safetensors", "--out", "runs/none")
    status, _, error = command(*words, "--budget", "5kLUT")
    assert status == 1
    assert "budget '5kLUT': target onnxruntime does not count it; give FLOPs or MB" in error
    status, _, error = command(*words, "--budget", "5lut", "--target", "reference")
    assert status == 1
    assert "unknown unit 'lut', did you mean 'LUT'?" in error


def test_it_is_listed(command: Command) -> None:
    found = {each["name"]: each for each in command("targets")[1]}
    assert (found["reference"]["quantities"], found["openvino"]["quantities"]) == (["luts"], [])
    assert load_device("fabric").runtime("onnx-reference")
