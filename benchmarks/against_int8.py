"""The search's best mixed-precision design against the largest design in uniform INT8 by the runtime's own quantizer.

The stock side is what an engineer would do today: the largest net's ONNX file through `quantize_static` (QDQ,
per-channel weights, its other settings as they come) for ONNX Runtime, through `nncf.quantize` (as it comes) for
OpenVINO, both with the same calibration images. Quality is each engine's own delta_m on test images, against the
largest net in FP32. The searched design is the fastest of the run's front, or the run's best one trained further
(`edgemtl train --run`, taught by the largest net), whose delta_m is at most one point below the stock net's; where none
comes so near, the nearest. A row of its own holds the largest net in edgemtl's INT8 against it: what the export gains.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _common import Outcome, Row, main, say
from _runs import drawn, kept, scenes_evaluator, searched, tuned
from numpy.typing import NDArray

from edgemtl.data import Sample, collate
from edgemtl.export import export_onnx
from edgemtl.nas.evaluation import Evaluator
from edgemtl.profiling import ratios
from edgemtl.tasks import delta_m
from edgemtl.train import Scorer, batches_of

CALIBRATION_IMAGES = 100
TEST_IMAGES = 192
QUICK_IMAGES = 48
ENGINES = 6
BUDGETS = {"onnxruntime": "31%ms", "openvino": "33%ms"}
TUNING_STEPS = {"onnxruntime": 1200, "openvino": 400}
QUICK_STEPS = 20
LEARNING_RATE = "0.002"
POINT = 0.01
SAME_NET = "largest_int8"

Array = NDArray[np.float32]
Run = Callable[[Array], dict[str, Array]]


def stock_onnxruntime(path: Path, images: Array, tasks: list[str]) -> tuple[Callable[[], Run], int]:
    """ONNX Runtime's static quantization; what opens an engine that runs all tasks, and the bytes of its file."""
    import onnxruntime as ort
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, quant_pre_process, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feed: Iterator[dict[str, Array]] = ({"image": image[None]} for image in images)

        def get_next(self) -> dict[str, Array] | None:
            return next(self.feed, None)

    prepared, quantized = path.with_name("prepared.onnx"), path.with_name("stock.onnx")
    quant_pre_process(path, prepared)
    quantize_static(prepared, quantized, Reader(), quant_format=QuantFormat.QDQ, per_channel=True)

    def open_engine() -> Run:
        session = ort.InferenceSession(str(quantized), providers=["CPUExecutionProvider"])
        return lambda x: dict(zip(tasks, session.run(tasks, {"image": x}), strict=True))

    return open_engine, quantized.stat().st_size


def stock_openvino(path: Path, images: Array, tasks: list[str]) -> tuple[Callable[[], Run], int]:
    """NNCF's post-training quantization, compiled for the CPU with a latency hint; the same pair."""
    import nncf
    import openvino as ov

    core = ov.Core()
    data = nncf.Dataset([image[None] for image in images])
    quantized = nncf.quantize(core.read_model(path), data, subset_size=len(images))
    file = path.with_name("stock.xml")
    ov.save_model(quantized, file, compress_to_fp16=False)

    def open_engine() -> Run:
        compiled = core.compile_model(quantized, "CPU", {"PERFORMANCE_HINT": "LATENCY"})
        request, outputs = compiled.create_infer_request(), [compiled.output(task) for task in tasks]

        def run(x: Array) -> dict[str, Array]:
            found = request.infer({0: x}, share_inputs=True, share_outputs=True)
            return {task: found[output] for task, output in zip(tasks, outputs, strict=True)}

        return run

    return open_engine, file.with_suffix(".bin").stat().st_size


def score(run: Run, evaluator: Evaluator, samples: list[Sample]) -> dict[str, dict[str, float]]:
    """Metrics of a runtime's outputs."""
    scorer = Scorer(evaluator.source.tasks)
    for batch in batches_of(samples, 16, tasks=evaluator.source.tasks):
        runs = [{name: value.copy() for name, value in run(image[None]).items()} for image in batch.image]
        joined = {name: np.concatenate([each[name] for each in runs]) for name in runs[0]}
        tasks = {task.name: task.outputs[0].name for task in evaluator.source.tasks}  # each has one output here
        scorer.update({task: {output: joined[task]} for task, output in tasks.items()}, batch)
    return scorer.compute()


def one_target(target: str, options: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    """Both sides on one runtime."""
    arguments = ["--evaluations", "6"] if options.quick else []
    name = f"{'quick-' if options.quick else ''}int8-{target}"
    folder = searched(name, "--budget", BUDGETS[target], "--target", target, *arguments)
    steps = str(QUICK_STEPS if options.quick else TUNING_STEPS[target])
    further = tuned(folder, "--steps", steps, "--learning-rate", LEARNING_RATE)
    space, evaluator = scenes_evaluator(target)
    tasks = evaluator.tasks_of("")
    test = list(evaluator.source.split("test")[: QUICK_IMAGES if options.quick else TEST_IMAGES])
    images = collate(evaluator.source.split("calibration")[:CALIBRATION_IMAGES]).image
    largest = evaluator.candidate(space.largest())
    baseline = evaluator.score(largest, test)
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "largest.onnx"
        export_onnx(largest.net, path)
        stock = {"onnxruntime": stock_onnxruntime, "openvino": stock_openvino}[target]
        opens_stock, stock_bytes = stock(path, images, tasks)
        stock_delta = delta_m(space.tasks, score(opens_stock(), evaluator, test), baseline)
        say(f"{target}: stock INT8 delta_m {100 * stock_delta:+.2f} %, {stock_bytes / 1e6:.2f} MB")
        same_net = {SAME_NET: evaluator.candidate(space.largest("int8"))}
        candidates = {**kept(folder), "tuned": further.load(), **same_net}
        deltas = {n: delta_m(space.tasks, evaluator.score(c, test), baseline) for n, c in candidates.items()}
        sizes = {name: candidate.design.cost().weight_bytes for name, candidate in candidates.items()}

        def opens(stack: ExitStack) -> dict[str, Callable[[], object]]:
            sessions = {name: stack.enter_context(evaluator.engine(each)) for name, each in candidates.items()}
            calls = {n: partial(session.run, evaluator.sample_image, tasks) for n, session in sessions.items()}
            return {"stock": partial(opens_stock(), evaluator.sample_image), **calls}

        samples = drawn(opens, 1 if options.quick else ENGINES)
    medians = {name: each.median_ms for name, each in samples.items()}
    found = [name for name in deltas if name != SAME_NET]
    near = [name for name in found if deltas[name] >= stock_delta - POINT] or [max(found, key=lambda n: deltas[n])]
    best = min(near, key=lambda name: medians[name])
    ratio = ratios(samples, best)["stock"]
    rows = [
        Row(f"{target}_latency", ratio.value, "x", 2.5, 4.8, False),
        Row(f"{target}_delta_m_below_stock", 100 * (stock_delta - deltas[best]), "points", 100 * POINT),
        Row(f"{target}_size", stock_bytes / sizes[best], "x", None, 3.44, False),
        Row(f"{target}_latency_of_the_same_net", medians["stock"] / medians[SAME_NET], "x"),
    ]
    raw = {
        "chosen": best,
        "median_ms": medians,
        "latency_interval": [ratio.low, ratio.high],
        "delta_m": {"stock": stock_delta, **deltas},
        "weight_bytes": {"stock": stock_bytes, **sizes},
        "design": dict((further.load() if best == "tuned" else folder.load(best)).design),
    }
    return rows, raw


def run(options: argparse.Namespace) -> Outcome:
    """Both runtimes; with `quick` ONNX Runtime alone."""
    rows, raw = [], {}
    for target in list(BUDGETS)[: 1 if options.quick else None]:
        found, raw[target] = one_target(target, options)
        rows += found
    return Outcome(rows, raw)


if __name__ == "__main__":
    main(run, __doc__)
