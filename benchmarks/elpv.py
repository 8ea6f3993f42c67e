"""A real inspection job end to end: 2,624 photos of solar cells, two labels (ELPV: CC-BY-NC-SA-4.0, non-commercial).

MobileNetV2 with ImageNet weights is trained as a supernet and searched under a latency budget on this host; the chosen
design is trained further, exported and profiled, all by the command line. The test quarter decides nothing: statistics
and ranges come from training and calibration images, the search looks at validation images. The baseline to beat is a
linear layer on frozen ImageNet features (86.3 % defect, 100 % type, a random 75/25 split). Cells of one module are
neighbours and no module is named, so a random split can be optimistic.
"""

from __future__ import annotations

import argparse
import json

from _common import Outcome, Row, main
from _runs import RUNS, edgemtl, tuned

from edgemtl.nas.runs import RunFolder
from edgemtl.results import read_result

FROZEN_DEFECT, FROZEN_TYPE = 0.863, 1.0
COMMON = ["--sizes", "0.8,1", "--zoom", "0.85,1.1", "--learning-rate", "0.0005"]
RECIPE = [*COMMON, "--largest-steps", "0.5", "--steps", "2000", "--batch", "8", "--processes", "2"]
QUICK = [*COMMON, "--largest-steps", "0.5", "--steps", "40", "--batch", "8"]
TUNING_STEPS, QUICK_TUNING_STEPS = 800, 20
BUDGET = "60%ms"


def run(options: argparse.Namespace) -> Outcome:
    """Train (once: the supernet is kept), search, train the chosen design further, export, profile."""
    name = "elpv-quick" if options.quick else "elpv"
    trained, run = RUNS / f"{name}-supernet", RUNS / name
    if not (trained / "supernet.safetensors").is_file():
        resume = ["--resume"] if (trained / "checkpoint.safetensors").is_file() else []
        recipe = QUICK if options.quick else RECIPE
        what = ["--space", "mobilenetv2", "--data", "elpv", "--weights", "imagenet"]
        edgemtl("train", *what, *recipe, "--out", str(trained), *resume)
    weights = ["--supernet", str(trained / "supernet.safetensors")]
    evaluations = ["--evaluations", "12"] if options.quick else []
    resume = ["--resume"] if (run / "config.json").is_file() else []
    budget = ["--space", "mobilenetv2", "--data", "elpv", "--budget", BUDGET]
    edgemtl("search", *budget, *weights, *evaluations, "--finetune", "0", "--out", str(run), *resume)
    steps = QUICK_TUNING_STEPS if options.quick else TUNING_STEPS
    further = tuned(RunFolder(run), *COMMON, "--steps", str(steps)).path
    edgemtl("export", str(further), "--target", "onnxruntime", "--target", "openvino")
    profile = json.loads(edgemtl("profile", str(further / "bundle"), "--format", "json", capture=True))
    result = read_result(further)
    assert result.best is not None
    assert result.best.latency_ms is not None
    scores = {task: metrics["accuracy"] for task, metrics in result.best.metrics.items()}
    rows = [
        Row("defect_accuracy", 100 * scores["defect"], "%", None if options.quick else 100 * FROZEN_DEFECT, 90, False),
        Row("type_accuracy", 100 * scores["type"], "%", None, 100 * FROZEN_TYPE, False),
        Row("latency", result.best.latency_ms.value, "ms"),
    ]
    before = read_result(run).best
    raw = {
        "metrics": result.best.metrics,
        "metrics_before_tuning": before.metrics if before else {},
        "metrics_of_largest": result.front[-1].metrics,
        "design": dict(result.best.design),
        "profile": profile,
    }
    return Outcome(rows, raw)


if __name__ == "__main__":
    main(run, __doc__)
