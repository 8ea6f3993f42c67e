"""A design is pruned, trained further, exported and reported, by the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chain import edgemtl, in_process, make_workplace

from edgemtl.cli import main
from edgemtl.data import open_source
from edgemtl.spaces import load_space
from edgemtl.testing.world import write_supernet

SIDE = ("--space", "tiny", "--data", "data")


NETS = """
import torch
from torch import nn


class Patch(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Conv2d(3, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.ReLU(), nn.Conv2d(24, 32, 3, 2, 1))
        self.maps = nn.Sequential(nn.Conv2d(32, 48, 1), nn.PixelShuffle(4))
        self.pool, self.side = nn.AdaptiveAvgPool2d(1), nn.Linear(32, 2)

    def forward(self, image):
        x = torch.relu(self.trunk(image))
        maps = self.maps(x)
        return {"regions": maps[:, :2], "depth": maps[:, 2:], "side": self.side(torch.flatten(self.pool(x), 1))}


def build():
    torch.manual_seed(0)
    return Patch()
"""

NOISY = """
import atexit
import os
import subprocess
import sys

from nets import Patch

print("noise: imported")
atexit.register(print, "noise: at exit")


class Noisy(Patch):
    def forward(self, image):
        print("noise: called")
        sys.__stdout__.write("noise: past sys.stdout\\n")
        os.write(1, b"noise: of a library\\n")
        return super().forward(image)


def build():
    subprocess.run(["echo", "noise: of a process"], check=True)
    return Noisy()
"""


def done(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prune")
    make_workplace(folder)
    tasks = open_source(str(folder / "data"), (64, 64)).tasks
    write_supernet(load_space(str(folder / "nas/tiny.yaml"), tasks), folder / "supernet.safetensors")
    few = ("--evaluations", "2", "--finetune", "0")
    words = (*SIDE, "--supernet", "supernet.safetensors", "--budget", "100%FLOPs", *few)
    done(in_process(folder, "search", *words, "--out", "runs/a"))
    return folder


def test_a_run_is_pruned_tuned_exported_and_reported(workplace: Path) -> None:
    words = ("prune", "runs/a", "--design", "baseline", "--budget", "70%FLOPs", "--fast", "--out", "runs/b")
    process = in_process(workplace, *words, "--format", "json")
    result: Any = json.loads(done(process))
    assert result["strategy"] == "prune"
    assert result["best"]["flops"] <= 0.7 * result["front"][-1]["flops"]
    pruned = [name for name in result["best"]["design"] if name.endswith(".channels")]
    assert pruned
    assert "groups measured" in process.stderr
    tuned = ("train", "--run", "runs/b", "--steps", "4", "--batch", "4", "--out", "runs/c", "--format", "json")
    assert json.loads(done(in_process(workplace, *tuned)))["best"]["design"] == result["best"]["design"]
    done(in_process(workplace, "export", "runs/c", "--target", "onnxruntime"))
    done(in_process(workplace, "report", "runs/c"))
    assert pruned[0] in (workplace / "runs/c/report.html").read_text()


def test_the_table_says_which_task_blocked_which_group(workplace: Path) -> None:
    words = ("prune", "runs/a", "--design", "baseline", "--budget", "70%params", "--out", "runs/d")
    shown = done(in_process(workplace, *words))
    assert "Which task blocked which group" in shown
    assert "depth_neck.lateral_s1" in shown
    assert "next: edgemtl train --run runs/d" in shown
    refused = in_process(workplace, *words)
    assert refused.returncode == 1
    assert "go on with --resume" in refused.stderr
    assert done(in_process(workplace, *words, "--resume")) == shown


@pytest.fixture
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget what other tests imported under the name of the module, and after the test what the command imports."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    sys.modules.pop("nets", None)
    yield
    sys.modules.pop("nets", None)


@pytest.mark.usefixtures("forgotten")
def test_a_module_of_ones_own_is_pruned_and_comes_back(workplace: Path) -> None:
    """In another process."""
    (workplace / "nets.py").write_text(NETS)
    words = ("prune", "nets:build", "--data", "data", "--size", "64x64", "--budget", "60%params", "--out", "runs/own")
    shown = done(in_process(workplace, *words))
    assert "regions, depth, side" in shown
    assert "next: edgemtl.nas.prune.apply_pruning(module, 'runs/own')" in shown
    back = (
        "import nets; from edgemtl.nas.prune import apply_pruning as cut; print(cut(nets.build(), 'runs/own').trunk[0])"
    )
    result = json.loads((workplace / "runs/own/result.json").read_text())
    kept = result["best"]["design"]["trunk.0.channels"]
    assert done(edgemtl(workplace, back, prefix=("-c",))).startswith(f"Conv2d(3, {kept}, ")
    assert done(in_process(workplace, *words, "--resume", "--format", "json")) == json.dumps(result, indent=2) + "\n"
    done(in_process(workplace, "compare", "runs/own", "runs/own"))
    refused = in_process(workplace, "export", "runs/own", "--target", "onnxruntime")
    assert refused.returncode == 1
    assert "is no run" in refused.stderr


def test_what_a_module_prints_stays_out_of_the_json(workplace: Path) -> None:
    (workplace / "nets.py").write_text(NETS)
    (workplace / "noisy.py").write_text(NOISY)
    options = ("--data", "data/data.yaml", "--size", "64x64", "--budget", "60%FLOPs", "--fast", "--format", "json")
    process = edgemtl(workplace, "prune", "noisy:build", *options, "--out", "runs/noisy")
    assert json.loads(done(process))["strategy"] == "prune"
    for words in ("imported", "called", "past sys.stdout", "of a library", "of a process", "at exit"):
        assert f"noise: {words}" in process.stderr, words


def test_a_folder_of_photos_needs_tasks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    assert main(["prune", "nets:build", "--data", "photos", "--budget", "60%FLOPs", "--out", "run"]) == 1
    assert "with photos alone give --tasks" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
