"""Weight bytes of one task's path through the mixture-of-experts ViT, when each task keeps 4 of 16 experts.

The whole model is the largest net of the space `moe-vit` with the shipped supernet's weights; the cut one differs in
that every task reaches its own window of 4 experts only. Nothing is trained after the cut: the supernet was trained
with such windows. delta_m is of test images by the exported engines, against the whole model's.
"""

from __future__ import annotations

import argparse

from _common import Outcome, Row, main
from _runs import scenes_evaluator

from edgemtl.tasks import delta_m

KEPT = 4
QUICK_IMAGES = 48


def run(options: argparse.Namespace) -> Outcome:
    """The largest share over tasks, and what the cut costs."""
    space, evaluator = scenes_evaluator("onnxruntime", "moe-vit")
    whole = space.largest()
    cut = space.design({**whole, **{f"{task.name}.experts": KEPT for task in space.tasks}})
    images = evaluator.test_samples[: QUICK_IMAGES if options.quick else None]
    metrics = {
        name: evaluator.score(evaluator.candidate(design), images) for name, design in (("whole", whole), ("cut", cut))
    }
    bytes_of = {task.name: cut.cost([task.name]).weight_bytes for task in space.tasks}
    lost = 100 * delta_m(space.tasks, metrics["cut"], metrics["whole"])
    rows = [
        Row("largest_path", 100 * max(bytes_of.values()) / whole.cost().weight_bytes, "%", 60.0, 35.0),
        Row("delta_m_after_the_cut", lost, "%", -1.0, None, lower_is_better=False),
    ]
    raw = {"path_weight_bytes": bytes_of, "whole_weight_bytes": whole.cost().weight_bytes, "metrics": metrics}
    return Outcome(rows, raw)


if __name__ == "__main__":
    main(run, __doc__)
