"""Graphs for TensorRT: every family, mode, precision and level, against the rules of 8.5 to 11.4, and built.

Nets are those of the shipped spaces (of each the smallest design, the middle one and the largest: levels of one
supernet), of every kind of block, with random weights; modes are the graph that answers any tasks and one of a task
alone. TensorRT-RTX builds them, on a machine without a GPU. Finished cases are kept: `--minutes` bounds a piece of the
run, and the same command goes on. `--quick`: small nets of every family, in FP16, whose engines hold the graphs in FP32
too.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import onnx
import torch
from _cases import add_minutes, cases_of
from _common import Outcome, Row, main, say
from _vit_small import vit_small

from edgemtl.errors import UnsupportedError
from edgemtl.models import MultiTaskNet
from edgemtl.models.quantization import Ranges, calibrate
from edgemtl.spaces import load_space
from edgemtl.targets import TENSORRT_VERSIONS, build_plan, find_target, lint
from edgemtl.testing import grid_net, images, small_net
from edgemtl.testing.examples import TASKS, experts_net

SPACES = ("cnn", "grid", "mobilenetv2", "moe-vit")
GPUS = ("SM86",)
ENGINES = ("fp32", "fp16")


def small_nets() -> Iterator[tuple[str, MultiTaskNet]]:
    """A net of every family, and of every kind of block."""
    yield "cnn/fused", small_net("fused", widths=(16, 24))
    yield "cnn/depthwise", small_net("depthwise", "relu6", widths=(16, 24))
    yield "grid", grid_net()
    yield "vit/experts", experts_net(1.0, (32, 64))


def shipped_nets() -> Iterator[tuple[str, MultiTaskNet]]:
    """Levels of every shipped space, in their own sizes, and M3ViT's."""
    for name in SPACES:
        space = load_space(name, TASKS)
        for level, design in (("smallest", space.smallest()), ("middle", space.middle()), ("largest", space.largest())):
            torch.manual_seed(0)
            yield f"{name}/{level}", MultiTaskNet(design.plan, TASKS).eval()
    yield "vit-small/bounded", vit_small(2, bounded=True)


def modes_of(net: MultiTaskNet) -> Mapping[str, MultiTaskNet]:
    """Any tasks by one graph, and the first alone."""
    first = net.tasks[0].name
    return {"any": net, first: net.subset([first])}


def precisions_of(net: MultiTaskNet, quick: bool) -> Iterator[tuple[str, dict[str, str]]]:
    """Types of float, with no block in INT8, every second one and all; FP16 alone where `quick`."""
    for engine in ENGINES[-1:] if quick else ENGINES:
        for name, every in (("float", 0), ("mixed", 2), ("int8", 1)):
            chosen = [block for number, block in enumerate(net.blocks) if every and number % every == 0]
            yield f"{engine}/{name}", {"engine": engine, **dict.fromkeys(chosen, "int8")}


def problems_of(net: MultiTaskNet, precision: Mapping[str, str], ranges: Ranges, folder: Path) -> dict[str, list[str]]:
    """Refusals of each version, for the graphs that are written into `folder`, and of the exporter's own check."""
    target = find_target("tensorrt")
    try:
        target.build(net, precision, ranges, folder)
    except UnsupportedError as error:
        return {"export": str(error).splitlines()}
    spec = json.loads((folder / "engine.json").read_text())
    graph_of = {"8.5": "8.5", "10.3": "10.0", "10.13": "10.13", "11.4": "11.0"}
    builds = {each["since"]: spec["files"][each["graph"]] for each in spec["options"]["builds"]}
    checked = {version: lint(onnx.load(folder / builds[graph_of[version]]), version) for version in TENSORRT_VERSIONS}
    return {version: [str(each) for each in problems] for version, problems in checked.items() if problems}


def failures_of(folder: Path, refusals: dict[str, str]) -> list[str]:
    """Why TensorRT-RTX does not build the graphs in a folder.

    `refusals` holds the answer of each graph that was built before, by its SHA-256 (empty: it was built): an engine in
    FP16 brings the graph of the same engine in FP32.
    """
    failures = []
    for path in sorted(folder.glob("*.onnx")):
        model = path.read_bytes()
        digest = hashlib.sha256(model).hexdigest()
        if digest not in refusals:
            refusals[digest] = refusal_of(model)
        if refusals[digest]:
            failures.append(f"{path.name}: {refusals[digest]}")
    return failures


def refusal_of(model: bytes) -> str:
    """Why TensorRT-RTX does not build a graph; empty where it does."""
    try:
        build_plan(model, GPUS)
    except UnsupportedError as error:
        return str(error)
    return ""


def case_of(
    net: MultiTaskNet, precision: Mapping[str, str], ranges_of: Callable[[], Ranges], refusals: dict[str, str]
) -> dict[str, Any]:
    """Refusals of one engine's graphs by each version's rules, and by TensorRT-RTX."""
    with tempfile.TemporaryDirectory() as scratch:
        refused = problems_of(net, precision, ranges_of(), Path(scratch))
        failed = failures_of(Path(scratch), refusals) if "export" not in refused else ["not exported"]
    for reason in (*(line for lines in refused.values() for line in lines), *failed):
        say(f"  {reason}")
    return {"lint": refused, "build": failed}


def run(options: argparse.Namespace) -> Outcome:
    """Shares of graphs that pass and that are built, and the minutes that all of it takes."""
    cases, raw = cases_of(options), {}
    for name, net in small_nets() if options.quick else shipped_nets():
        ranges_of = cache(partial(calibrate, net, images(4, net.input_size)))
        refusals: dict[str, str] = {}
        for mode, part in modes_of(net).items():
            for label, precision in precisions_of(part, options.quick):
                case = f"{name}/{mode}/{label}"
                raw[case] = cases.result(case, partial(case_of, part, precision, ranges_of, refusals))
    passed = sum(not each["lint"] for each in raw.values())
    built = sum(not each["build"] for each in raw.values())
    rows = [
        Row("graphs that pass for 8.5, 10.3, 10.13 and 11.4", 100 * passed / len(raw), "%", 100, lower_is_better=False),
        Row("graphs that TensorRT-RTX builds", 100 * built / len(raw), "%", 100, lower_is_better=False),
        Row("all of it", sum(cases.seconds.values()) / 60, "min", aim=10),
    ]
    return Outcome(rows, {"cases": raw, "seconds": cases.seconds})


if __name__ == "__main__":
    main(run, __doc__, add_minutes)
