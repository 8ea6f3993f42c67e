"""FLOPs of one task of the mixture-of-experts ViT-S, against a ViT-S per task that all stay active (Cross-Stitch).

The tasks are the five dense ones of PASCAL-Context, which M3ViT reports on (-88 %), at 224x224; the experts are M3ViT's
16 of a quarter of the MLP, of which a token goes to 3: the fewest of which `moe_quality` finds that they are no worse
than the dense net. With M3ViT's 4, and with 2, it is in the raw figures. Cross-Stitch (Misra et al. 2016) mixes the
features of all tasks' nets after every block, so that one task alone needs all encoders, but its own decoder only. Both
sides are counted on their ONNX graphs; of the mixing itself, which is not built, one multiply-accumulate is counted for
each pair of tasks and each value of a block's output. Nothing is timed, and nothing said of quality.
"""

from __future__ import annotations

import argparse

from _common import Outcome, Row, main
from _vit_small import EXPERTS, SIZE

from edgemtl.models import MultiTaskNet
from edgemtl.profiling import count_graph
from edgemtl.spaces.families.vit import VitSpec, vit_plan
from edgemtl.targets.onnx.emit import emit
from edgemtl.tasks import Task, make_task

TASKS = (
    make_task("semseg", "segmentation", 21),
    make_task("parts", "segmentation", 7),
    make_task("saliency", "saliency"),
    make_task("edges", "edges"),
    make_task("normals", "normals"),
)
DECODER = {"width": [64], "depth": [1]}
TOP_K = 3


def run(options: argparse.Namespace) -> Outcome:
    """The relative difference, for the task that gains least."""
    dense = {task.name: flops([task], None) for task in TASKS}
    encoder = {task.name: dense[task.name] - decoder_flops(task) for task in TASKS}
    mixing = mixing_flops()
    stitched = {name: sum(encoder.values()) + mixing + dense[name] - encoder[name] for name in dense}
    found = {}
    for top_k in (4, TOP_K, 2):
        own = {task.name: flops([task], {**EXPERTS, "top_k": [top_k]}) for task in TASKS}
        found[f"top_{top_k}"] = {name: 100 * (own[name] / stitched[name] - 1) for name in own}
    worst = max(found[f"top_{TOP_K}"].values())
    rows = [Row("single_task_flops", worst, "%", -80.0, -88.0)]
    raw = {"percent": found, "cross_stitch_flops": stitched, "encoder_flops": encoder, "mixing_flops": mixing}
    return Outcome(rows, raw)


def flops(tasks: list[Task], experts: dict[str, object] | None) -> float:
    """FLOPs of the exported net of some tasks."""
    return count_graph(emit(MultiTaskNet(vit_plan(spec(experts), tasks, {}, SIZE), tasks).eval())).total.flops


def decoder_flops(task: Task) -> float:
    """FLOPs of a task's blocks behind the encoder."""
    return 2 * sum(b.macs for b in vit_plan(spec(None), [task], {}, SIZE).blocks if b.task is not None)


def mixing_flops() -> float:
    """FLOPs that the units of Cross-Stitch add after each block of all nets."""
    blocks = [block for block in vit_plan(spec(None), TASKS[:1], {}, SIZE).blocks if block.kind == "tokens"]
    values = sum(block.convs[0].inputs * block.convs[0].height * block.convs[0].width for block in blocks)
    return 2 * len(TASKS) ** 2 * values


def spec(experts: dict[str, object] | None) -> VitSpec:
    """ViT-S with its decoders."""
    return VitSpec.model_validate({"preset": "small", "experts": experts, "decoder": DECODER})


if __name__ == "__main__":
    main(run, __doc__)
