"""The mixture-of-experts family through the same verbs as every other, from training to the report."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from chain import in_process, make_workplace

from edgemtl.bundle import BundleExperts, Manifest
from edgemtl.cli.export import _dropped
from edgemtl.cli.screen import Screen

SPACE = """
schema: edgemtl.space/1
family: vit
input: [64, 64]
precision: [float, int8]
vit:
  stem: [8, 8, 16]
  width: 32
  head_width: 16
  heads: [1, 2]
  depth: [2]
  hidden: [32]
  experts: {every: 2, count: 6, hidden: 16, kept: [2, 4], top_k: [1, 2]}
  decoder: {width: [8, 16], depth: [1]}
"""
SIDE = ("--space", "tiny-vit", "--data", "data")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("experts")
    make_workplace(folder)
    (folder / "nas/tiny-vit.yaml").write_text(SPACE)
    return folder


@pytest.fixture(scope="module")
def searched(workplace: Path) -> Any:
    done(
        in_process(workplace, "train", *SIDE, "--steps", "8", "--batch", "4", "--sizes", "1", "--out", "runs/supernet")
    )
    supernet = ("--supernet", "runs/supernet/supernet.safetensors")
    search = (
        "search",
        *SIDE,
        *supernet,
        "--budget",
        "90%FLOPs",
        "--evaluations",
        "4",
        "--finetune",
        "0",
        "--out",
        "runs/experts",
    )
    return json.loads(done(in_process(workplace, *search, "--format", "json")))


def done(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 0, process.stderr
    return process.stdout


def test_a_design_says_which_experts_a_task_keeps(searched: Any) -> None:
    design = searched["best"]["design"]
    assert {"depth.experts", "side.experts", "regions.b2.top_k", "b2.precision"} <= design.keys()
    assert "b2_depth.precision" not in design, "weights that tasks share have one precision"


def test_the_bundle_runs_any_task_and_is_measured_and_reported(workplace: Path, searched: Any) -> None:
    targets = ("--target", "onnxruntime", "--target", "openvino")
    done(in_process(workplace, "export", "runs/experts", *targets))
    image = str(next((workplace / "data/images/test").iterdir()))
    for tasks in ("depth", "depth,side"):
        done(in_process(workplace, "run", "runs/experts/bundle", image, "--tasks", tasks, "--out", f"pictures/{tasks}"))
    assert list((workplace / "pictures/depth").iterdir())
    profile = json.loads(
        done(in_process(workplace, "profile", "runs/experts/bundle", "--runs", "20", "--format", "json"))
    )
    assert profile["schema"].startswith("edgemtl.profile/")
    done(in_process(workplace, "report", "runs/experts"))
    page = (workplace / "runs/experts/report.html").read_text()
    assert "Layer b2" in page and "What each task owns and shares" in page
    lacking = in_process(workplace, "run", "runs/experts/bundle", image, "--tasks", "dept", "--out", "none")
    assert lacking.returncode == 1 and lacking.stderr.splitlines() == [lacking.stderr.strip()]
    assert "unknown task in the bundle: 'dept': did you mean depth" in lacking.stderr


def test_experts_can_be_streamed_on_a_board_that_is_too_small_for_them(workplace: Path, searched: Any) -> None:
    """Parity is checked by the export itself; the profile tells where time goes, waiting for weights included."""
    bundle = "runs/experts/streamed"
    done(in_process(workplace, "export", "runs/experts", "--target", "streaming", "--out", bundle))
    image = str(next((workplace / "data/images/test").iterdir()))
    done(in_process(workplace, "run", bundle, image, "--tasks", "depth,side", "--out", "pictures/streamed"))
    assert len(list((workplace / "pictures/streamed").iterdir())) == 2
    profile = json.loads(done(in_process(workplace, "profile", bundle, "--runs", "20", "--format", "json")))
    assert profile["target"] == profile["runtime"] == "streaming"
    assert {"Load", "Mixture", "Router"} <= {row["name"] for row in profile["operators"]["by_type"]}


def test_export_tells_who_uses_which_expert(workplace: Path, searched: Any) -> None:
    exported = in_process(workplace, "export", "runs/experts", "--exact", "--out", "exact", "--format", "json")
    manifest = json.loads(done(exported))
    assert {(use["layer"], use["task"]) for use in manifest["experts"]} == {
        ("b2", task) for task in ("regions", "depth", "side")
    }
    design = searched["best"]["design"]
    for use in manifest["experts"]:
        assert len(use["experts"]) == design[f"{use['task']}.experts"]
        assert use["top_k"] == design[f"{use['task']}.b2.top_k"]


def test_a_target_that_drops_tokens_is_told_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    uses = [
        BundleExperts(
            layer="b2", task=task, experts=(0, 1), top_k=1, tokens=16, images=6, shares=(0.9, 0.1), gates=(0.9, 0.6),
            most_tokens=15, expert_bytes=100, dropped_by_target={"tensorrt-rtx": share},
        )
        for task, share in (("depth", 0.01), ("side", 0.03))
    ]  # fmt: skip
    targets: dict[str, Any] = dict.fromkeys(("onnxruntime", "tensorrt-rtx"))
    _dropped(Screen(), Manifest.model_construct(targets=targets, experts=tuple(uses)))
    assert capsys.readouterr().out == (
        "tensorrt-rtx drops 2.00% of the tokens sent to experts, most in b2 of side (3.00%): edgemtl export --exact "
        "drops none, but every expert then computes every token\n"
    )
