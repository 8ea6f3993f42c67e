"""Designs that `edgemtl search --space moe-vit` finds under floors of 1 % for each task, against their FP32 form.

Without a budget such a search looks for the fastest that keeps the floors, so that the architecture stays near the
largest and what is won is won by precision. The best design's engine and its FP32 twin are timed in turns over several
engines; delta_m is of test images by both engines, the searched one against its twin. Their architecture, weights and
statistics are the same.
"""

from __future__ import annotations

import argparse

from _common import Outcome, Row, main, say
from _runs import kept, scenes_evaluator, searched

from edgemtl.nas.evaluation import Candidate
from edgemtl.nas.evaluation.finalists import timed_together
from edgemtl.tasks import delta_m

ENGINES, QUICK_ENGINES = 6, 1
FLOORS = ("semseg=1%", "depth=1%", "normals=1%", "edges=1%")
EVALUATIONS, QUICK_EVALUATIONS = "24", "4"


def run(options: argparse.Namespace) -> Outcome:
    """Speed and quality on OpenVINO, which has BF16 and INT8, and on ONNX Runtime, which has INT8."""
    rows, raw = [], {}
    for target in ("openvino", "onnxruntime"):
        name = f"moe-floors-{target}{'-quick' if options.quick else ''}"
        evaluations = QUICK_EVALUATIONS if options.quick else EVALUATIONS
        floors = [word for floor in FLOORS for word in ("--floor", floor)]
        arguments = ["--space", "moe-vit", *floors, "--target", target, "--evaluations", evaluations]
        best = kept(searched(name, *arguments))["best"]
        space, evaluator = scenes_evaluator(target, "moe-vit")
        twin = next(d for d in space.uniform(best.design) if set(d.precision.values()) == {"float", "fp32"})
        sides = {"searched": best, "fp32": Candidate(twin, best.net, None)}
        times = timed_together(evaluator, list(sides.values()), QUICK_ENGINES if options.quick else ENGINES)
        medians = dict(zip(sides, (ms[""] for ms in times), strict=True))
        images = evaluator.test_samples[:48] if options.quick else evaluator.test_samples
        metrics = {side: evaluator.score(candidate, images) for side, candidate in sides.items()}
        lost = 100 * delta_m(space.tasks, metrics["searched"], metrics["fp32"])
        say(f"{target}: {medians}, {lost:+.2f} %")
        rows.append(Row(f"faster_on_{target}", medians["fp32"] / medians["searched"], "x", 1.5, 3.0, False))
        rows.append(Row(f"delta_m_on_{target}", lost, "%", -1.0, None, False))
        raw[target] = {"median_ms": medians, "metrics": metrics, "precision": best.design.precision}
    return Outcome(rows, raw)


if __name__ == "__main__":
    main(run, __doc__)
