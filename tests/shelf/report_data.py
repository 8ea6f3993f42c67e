"""A run and a profile as they stand in files, for the tests of the report."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from edgemtl.profiling import Samples

TASKS = ("depth", "semseg")


def block_content(name: str, task: str | None = None, **changes: Any) -> dict[str, Any]:
    """A block's record: the trunk's, which both tasks run, or a task's own."""
    return {
        "name": name, "kind": "fused", "task": task, "tasks": [task] if task else list(TASKS), "inputs": ["image"],
        "channels": 16, "words": ["x2", "fused", "3x3"], "numbers": {"kernel": 3}, "precision": "float",
        "flops": 1_000_000, "weights": [{"name": name, "params": 300, "bytes": 1200}], "stage": None if task else name,
        **changes,
    }  # fmt: skip


def entry_content(**changes: Any) -> dict[str, Any]:
    return {
        "design": {
            "stem.width": 16, "s1.width": 32, "s1.depth": 2, "s1.expand": 2, "depth.width": 16, "semseg.width": 24,
            "stem.precision": "int8", "s1_1.precision": "float", "s1_2.precision": "int8", "engine.precision": "bf16",
        },
        "flops": 4_000_000,
        "macs": 2_000_000,
        "params": 1500,
        "bytes": 6000,
        "latency_ms": {"value": 6.1, "kind": "measured", "device": "host", "runtime": "onnxruntime"},
        "metrics": {"depth": {"rmse": 0.4, "delta1": 0.9}, "semseg": {"miou": 0.5}},
        "delta_m": -0.02,
        "paths": {"depth": {"flops": 3_000_000, "params": 1000}, "semseg": {"flops": 3_500_000, "params": 1200}},
        "feasible": True,
        "kind": "candidate",
        "name": "best",
        "blocks": [
            block_content("stem", stage="stem", precision="int8", words=["conv", "3x3"]),
            block_content("s1_1", stage="s1", channels=32),
            block_content("depth_head", "depth", inputs=["s1_1"]),
            block_content("semseg_head", "semseg", inputs=["s1_1"], channels=24),
        ],
        **changes,
    }  # fmt: skip


def result_content(**changes: Any) -> dict[str, Any]:
    baseline = entry_content(
        design={"stem.width": 24}, flops=8_000_000, macs=4_000_000, delta_m=0.0, kind="baseline", name="baseline",
        feasible=False, metrics={"depth": {"rmse": 0.38, "delta1": 0.92}, "semseg": {"miou": 0.52}},
    )  # fmt: skip
    small = entry_content(design={"stem.width": 8}, flops=2_000_000, macs=1_000_000, delta_m=-0.08, name="small")
    large = entry_content(design={"stem.width": 20}, flops=6_000_000, macs=3_000_000, feasible=False, name="large")
    return {
        "schema": "edgemtl.result/1",
        "command": "edgemtl search --budget 5MFLOPs",
        "seed": 0,
        "data": {"name": "scenes", "fingerprint": "abc", "scored_on": "192 test images"},
        "space": "cnn",
        "strategy": "linas",
        "budgets": ["5MFLOPs", "60%FLOPs", "8ms@host/onnxruntime"],
        "feasible": True,
        "best": entry_content(),
        "front": [entry_content(), small, large, baseline],
        "evaluations": 36,
        "seconds": 300.0,
        "environment": {"python": "3.11", "cpu": {"model": "a processor", "flags": ["avx2"]}},
        **changes,
    }


def broken_floor() -> list[dict[str, Any]]:
    """The limits of a design that keeps its budget and not its floor."""
    return [
        {
            "kind": "budget", "text": "5MFLOPs", "quantity": "flops", "task": None, "allowed": 5e6, "value": 4e6,
            "excess": -0.2, "kept": True,
        },
        {
            "kind": "floor", "text": "depth=2%", "quantity": "drop", "task": "depth", "allowed": 0.02, "value": 0.053,
            "excess": 0.033, "kept": False,
        },
    ]  # fmt: skip


def profile_content(factor: float = 1.0) -> dict[str, Any]:
    rng = np.random.default_rng(0)

    def mode(name: str, tasks: tuple[str, ...], ms: float) -> dict[str, Any]:
        drawn = tuple(float(value) for value in factor * rng.normal(ms, 0.1, 200))
        block = Samples(drawn, 40, 10).block(device="host", runtime="onnxruntime", threads=2, includes="one run")
        return {"name": name, "tasks": tasks, "latency": block.model_dump(mode="json")}

    def figure(value: float, kind: str = "derived") -> dict[str, Any]:
        return {"value": value, "kind": kind, "how": "arithmetic"}

    shares = [{"name": "s1_1", "owner": "", "operators": 2, "ms": 3.0, "share": 0.6}]
    shares += [{"name": "depth_head", "owner": "depth", "operators": 1, "ms": 2.0, "share": 0.4}]
    costs = {"alone_ms": figure(4.0, "measured"), "own_ms": figure(2.0), "marginal_ms": figure(2.1)}
    return {
        "schema": "edgemtl.profile/1",
        "name": "bundle",
        "source": "bundle",
        "target": "onnxruntime",
        "runtime": "onnxruntime",
        "device": "host",
        "threads": 2,
        "tasks": list(TASKS),
        "modes": [mode("all tasks", TASKS, 6.0), *(mode(f"only {task}", (task,), 4.0) for task in TASKS)],
        "task_costs": {task: costs for task in TASKS},
        "trunk_ms": figure(2.0),
        "separate_ms": figure(8.0),
        "counts": None,
        "operators": {"runs": 20, "total_ms": 5.0, "by_block": shares, "by_type": shares, "kind": "measured"},
        "opening": {
            "open_ms": 100.0, "first_run_ms": 20.0, "baseline_bytes": 4 * 10**7, "open_peak_bytes": 9 * 10**7,
            "run_peak_bytes": 10**8, "kind": "measured",
        },
        "stability": {
            "stable": False, "throttled": "unknown", "worst_cov": 0.2, "load_average": 1.5, "others_cpu": 0.3,
            "stolen_cpu": 0.0, "reasons": ["other processes took 30% of the machine"],
        },
        "seconds": 12.0,
        "environment": {"cpu": {"model": "a processor"}},
    }  # fmt: skip


def manifest_content(folder: Path) -> dict[str, Any]:
    """A manifest, with the files that it names written into `folder`."""
    for name in ("openvino", "tensorrt-rtx"):
        (folder / "engines" / name).mkdir(parents=True)
        (folder / "engines" / name / "e").write_text("engine")
    digest = hashlib.sha256(b"engine").hexdigest()

    def task(name: str, kind: str, channels: int, metric: str, higher: bool, postprocess: str) -> dict[str, Any]:
        output = {"name": "logits", "tensor": name, "channels": channels, "dense": True}
        return {
            "name": name, "kind": kind, "channels": channels, "classes": [], "metric": metric,
            "higher_is_better": higher, "outputs": [output], "postprocess": postprocess,
        }  # fmt: skip

    apart = {"max_abs_error": 1e-5, "relative_error": 1e-6, "unit": "log-metres"}
    parity = {"outputs": {"log_metres": apart}, "metric": "rmse", "torch": 0.4, "engine": 0.44, "images": 48}
    parity |= {"split": "validation", "metric_allowed": 0.03}
    entry = entry_content()
    return {
        "schema": "edgemtl.bundle/1",
        "name": "net",
        "created": "2026-01-01T00:00:00+00:00",
        "space": "cnn",
        "family": "cnn",
        "design": entry["design"],
        "blocks": entry["blocks"],
        "precision": {"engine": "bf16", "stem": "int8", "s1_1": "float", "s1_2": "float"},
        "input": {"height": 192, "width": 256, "mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]},
        "tasks": [
            task("depth", "depth", 1, "rmse", False, "exp"),
            task("semseg", "segmentation", 3, "miou", True, "argmax"),
        ],
        "modes": [["depth", "semseg"]],
        "targets": {
            "openvino": {
                "folder": "engines/openvino", "files": ["e"], "runtime": "openvino",
                "parity": {"depth": parity},
            },
            "tensorrt-rtx": {"folder": "engines/tensorrt-rtx", "files": ["e"], "runtime": "tensorrt-rtx", "parity": {}},
        },
        "files": {"engines/openvino/e": digest, "engines/tensorrt-rtx/e": digest},
        "cost": {"flops": entry["flops"], "params": 1500, "weight_bytes": 6000, "paths": entry["paths"]},
        "provenance": {"environment": {"python": "3.11"}},
    }  # fmt: skip
