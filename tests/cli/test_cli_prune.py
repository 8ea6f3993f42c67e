"""A design is pruned, trained further, exported and reported, by the command line."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from chain import edgemtl, make_workplace

SIDE = ("--space", "tiny", "--data", "data")

pytestmark = pytest.mark.xdist_group("prune")


def done(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prune")
    make_workplace(folder)
    done(edgemtl(folder, "train", *SIDE, "--steps", "8", "--batch", "4", "--sizes", "1", "--out", "runs/supernet"))
    supernet = ("--supernet", "runs/supernet/supernet.safetensors")
    done(edgemtl(folder, "search", *SIDE, *supernet, "--budget", "100%FLOPs", "--evaluations", "2", "--out", "runs/a"))
    return folder


def test_a_run_is_pruned_tuned_exported_and_reported(workplace: Path) -> None:
    words = ("prune", "runs/a", "--design", "baseline", "--budget", "70%FLOPs", "--fast", "--out", "runs/b")
    process = edgemtl(workplace, *words, "--format", "json")
    result: Any = json.loads(done(process))
    assert result["strategy"] == "prune"
    assert result["best"]["flops"] <= 0.7 * result["front"][-1]["flops"]
    pruned = [name for name in result["best"]["design"] if name.endswith(".channels")]
    assert pruned
    assert "groups measured" in process.stderr
    tuned = ("train", "--run", "runs/b", "--steps", "4", "--batch", "4", "--out", "runs/c", "--format", "json")
    assert json.loads(done(edgemtl(workplace, *tuned)))["best"]["design"] == result["best"]["design"]
    done(edgemtl(workplace, "export", "runs/c", "--target", "onnxruntime"))
    done(edgemtl(workplace, "report", "runs/c"))
    assert pruned[0] in (workplace / "runs/c/report.html").read_text()


def test_the_table_says_which_task_blocked_which_group(workplace: Path) -> None:
    words = ("prune", "runs/a", "--design", "baseline", "--budget", "70%params", "--out", "runs/d")
    shown = done(edgemtl(workplace, *words))
    assert "Which task blocked which group" in shown
    assert "depth_neck.lateral_s1" in shown
    assert "next: edgemtl train --run runs/d" in shown
    refused = edgemtl(workplace, *words)
    assert refused.returncode == 1
    assert "go on with --resume" in refused.stderr
    assert done(edgemtl(workplace, *words, "--resume")) == shown
