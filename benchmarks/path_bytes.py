"""Weight bytes of one task's path through the mixture-of-experts ViT, when each task keeps 4 of 16 experts.

The whole model is the largest net of the space `moe-vit` with the shipped supernet's weights; the cut one differs in
that every task reaches its own window of 4 experts only. It is trained further for some steps (`edgemtl train --run`),
taught by the whole model. delta_m is of test images by the exported engine, against the whole model's.
"""

from __future__ import annotations

import argparse

from _common import Outcome, Row, main
from _runs import scenes_evaluator, searched, tuned

from edgemtl.results import read_result
from edgemtl.tasks import delta_m

KEPT = 4
STEPS, QUICK_STEPS = 150, 4
RECIPE = ["--sizes", "1", "--learning-rate", "0.0003"]


def run(options: argparse.Namespace) -> Outcome:
    """The largest share over tasks, and what the cut costs."""
    asked = ["--space", "moe-vit", "--budget", "100%FLOPs", "--evaluations", "2", "--strategy", "random"]
    folder = searched("paths-quick" if options.quick else "paths", *asked)
    space, evaluator = scenes_evaluator("onnxruntime", "moe-vit")
    whole = space.largest()
    cut = space.design({**whole, **{f"{task.name}.experts": KEPT for task in space.tasks}})
    candidate = evaluator.candidate(cut)
    folder.save("cut", candidate)
    steps = str(QUICK_STEPS if options.quick else STEPS)
    after = read_result(tuned(folder, "--design", "cut", *RECIPE, "--steps", steps).path).best
    assert after is not None
    metrics = {
        "whole": evaluator.score(evaluator.candidate(whole), evaluator.test_samples),
        "cut": evaluator.score(candidate, evaluator.test_samples),
        "cut_and_tuned": after.metrics,
    }
    lost = {name: 100 * delta_m(space.tasks, metrics[name], metrics["whole"]) for name in ("cut", "cut_and_tuned")}
    bytes_of = {task.name: cut.cost([task.name]).weight_bytes for task in space.tasks}
    rows = [
        Row("path_weight_bytes", 100 * max(bytes_of.values()) / whole.cost().weight_bytes, "%", 60.0, 35.0),
        Row("delta_m_after_the_cut", lost["cut_and_tuned"], "%", -1.0, None, lower_is_better=False),
    ]
    raw = {
        "path_weight_bytes": bytes_of,
        "whole_weight_bytes": whole.cost().weight_bytes,
        "delta_m_percent": lost,
        "metrics": metrics,
        "tuning_steps": int(steps),
    }
    return Outcome(rows, raw)


if __name__ == "__main__":
    main(run, __doc__)
