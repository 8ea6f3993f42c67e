"""ViT-S/16 at 224x224 with and without experts, untrained: what the benchmarks of dispatch and switching run.

M3ViT's sizes: width 384, 12 blocks, 6 heads; in every second block 16 experts of a quarter of the MLP each, of which
every token goes to 4, so that both nets have the same FLOPs but for the routers. Weights are random, which is the
hardest case for a dispatch: every expert gets tokens in every layer. Where they are `bounded` an expert takes at most
1.25 times an even share of them, and the rest are dropped, as in a net that was trained so (`moe_quality`). Every call
sees the next of a dozen images, as a camera's frames differ: tokens then go to other experts, and a runtime that
prepares anew for every shape has to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import cache
from itertools import cycle

import numpy as np
import torch
from _runs import drawn, opened
from numpy.typing import NDArray

from edgemtl.models import MultiTaskNet
from edgemtl.profiling import Samples
from edgemtl.runtime import Session
from edgemtl.spaces.families.vit import VitSpec, vit_plan
from edgemtl.targets import ExportTarget, find_target
from edgemtl.targets.onnx.dispatch import DispatchPolicy
from edgemtl.tasks import Task, make_task

SIZE = (224, 224)
FRAMES = 13
"""Images, no multiple of the number of tasks: every task sees every one."""
ENGINES = {"onnxruntime_fp32": ("onnxruntime", "fp32"), "openvino_fp32": ("openvino", "fp32"),
           "openvino_bf16": ("openvino", "bf16")}  # fmt: skip
EXPERTS = {"every": 2, "count": 16, "hidden": 384, "kept": [16], "top_k": [4]}
CAPACITY = 1.25
LARGEST = {"preset": "small", "decoder": {"width": [64]}}


def tasks(count: int) -> tuple[Task, ...]:
    """Classifications of ten kinds: decoders that weigh nothing beside the encoder."""
    return tuple(make_task(f"task{number}", "classification", 10) for number in range(count))


def vit_small(count: int = 1, experts: bool = True, bounded: bool = False, seed: int = 0) -> MultiTaskNet:
    """The net for `count` tasks."""
    torch.manual_seed(seed)
    routed = {**EXPERTS, "capacity": CAPACITY} if bounded else EXPERTS
    spec = VitSpec.model_validate({**LARGEST, "experts": routed if experts else None})
    return MultiTaskNet(vit_plan(spec, tasks(count), {}, SIZE), tasks(count)).eval()


def with_dispatch(name: str, dispatch: DispatchPolicy) -> ExportTarget:
    """A target whose experts get their tokens in another form."""
    changed: ExportTarget = type("Changed", (type(find_target(name)),), {"dispatch": dispatch})()
    return changed


def drawn_in_turns(
    sides: Mapping[str, tuple[MultiTaskNet, ExportTarget]], engine: str, engines: int
) -> dict[str, Samples]:
    """Latencies of one task on each side's net and target, pooled over several engines of each."""

    def opens(stack: ExitStack) -> dict[str, Callable[[], object]]:
        sessions = {name: opened(stack, net, target, engine, [["task0"]]) for name, (net, target) in sides.items()}
        return {name: over_frames(session, ["task0"]) for name, session in sessions.items()}

    return drawn(opens, engines)


def over_frames(session: Session, *turns: Sequence[str]) -> Callable[[], object]:
    """A call that runs the next of `turns`, each a list of tasks, on the next frame."""
    frames, order = cycle(_frames()), cycle(turns)
    return lambda: session.run(next(frames), next(order))


@cache
def _frames() -> tuple[NDArray[np.float32], ...]:
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal((1, 3, *SIZE), np.float32) for _ in range(FRAMES))
