"""The search's best mixed-precision design against the largest design in uniform INT8 by the runtime's own quantizer.

The stock side is what an engineer would do today: the largest net's ONNX file through `quantize_static` (QDQ,
per-channel weights, its other settings as they come) for ONNX Runtime, through `nncf.quantize` (as it comes) for
OpenVINO, both with the same calibration images. Ours are the designs of a whole search for each, by the command as it
comes: under about half of the largest net's FLOPs, the best one fine-tuned. Which of them is held against the stock net
is chosen on validation images, and on latencies that are drawn for that alone: the fastest whose delta_m there is at
most one point below the stock net's; where none comes so near, the nearest. It is then scored on test images and timed
anew, in turns with the stock net, which is what the rows tell; delta_m is each engine's own, against the largest net in
FP32. A row of its own holds the largest net in edgemtl's INT8 against it: what the export gains.

Two searches: 25 minutes on two cores with AVX-512. They are kept under `runs/`. --quick takes ONNX Runtime alone, a few
designs and no fine-tuning, in under three minutes.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from _common import Outcome, Row, main, say
from _runs import drawn, kept, scenes_evaluator, searched
from numpy.typing import NDArray

from edgemtl.data import Sample, collate
from edgemtl.export import export_onnx
from edgemtl.nas.evaluation import Candidate, Evaluator
from edgemtl.profiling import Samples, ratios
from edgemtl.tasks import delta_m
from edgemtl.train import Scorer, batches_of, subsample

CALIBRATION_IMAGES = 100
TEST_IMAGES = 192
QUICK_IMAGES = 48
ENGINES, CHOOSING_ENGINES = 6, 2
TARGETS = ("onnxruntime", "openvino")
BUDGET = "2GFLOPs"
QUICK_EVALUATIONS = "6"
POINT = 0.01
STOCK, SAME_NET = "stock", "largest_int8"

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


@dataclass(frozen=True)
class Contest:
    """The stock net against candidates on one runtime: `open_stock` opens its engine for all `tasks`."""

    evaluator: Evaluator
    largest: Candidate
    open_stock: Callable[[], Run]

    @property
    def tasks(self) -> tuple[str, ...]:
        """All tasks."""
        return self.evaluator.tasks_of("")

    def deltas(self, candidates: Mapping[str, Candidate], samples: list[Sample]) -> dict[str, float]:
        """delta_m against the largest net in FP32, of the stock net's engine and of candidates'."""
        base = self.evaluator.score(self.largest, samples)
        scores = {STOCK: score(self.open_stock(), self.evaluator, samples)}
        scores |= {name: self.evaluator.score(candidate, samples) for name, candidate in candidates.items()}
        return {name: delta_m(self.evaluator.source.tasks, metrics, base) for name, metrics in scores.items()}

    def latencies(self, candidates: Mapping[str, Candidate], engines: int) -> dict[str, Samples]:
        """Latencies of the stock net and of candidates, drawn in turns over several engines of each."""
        image = self.evaluator.sample_image

        def opens(stack: ExitStack) -> dict[str, Callable[[], object]]:
            sessions = {name: stack.enter_context(self.evaluator.engine(each)) for name, each in candidates.items()}
            calls = {name: partial(session.run, image, self.tasks) for name, session in sessions.items()}
            return {STOCK: partial(self.open_stock(), image), **calls}

        return drawn(opens, engines)


def one_target(target: str, quick: bool) -> tuple[list[Row], dict[str, Any]]:
    """Both sides on one runtime."""
    ours = searched_designs(target, quick)
    space, evaluator = scenes_evaluator(target)
    source = evaluator.source
    largest, same_net = evaluator.candidate(space.largest()), evaluator.candidate(space.largest("int8"))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "largest.onnx"
        export_onnx(largest.net, path)
        stock = {"onnxruntime": stock_onnxruntime, "openvino": stock_openvino}[target]
        calibration = collate(source.split("calibration")[:CALIBRATION_IMAGES]).image
        open_stock, stock_bytes = stock(path, calibration, list(evaluator.tasks_of("")))
        contest, count = Contest(evaluator, largest, open_stock), QUICK_IMAGES if quick else TEST_IMAGES
        validation = contest.deltas(ours, subsample(source.split("validation"), count))
        near = {name: ours[name] for name in near_stock(validation)}
        first = contest.latencies(near, 1 if quick else CHOOSING_ENGINES)
        best = min(near, key=lambda name: first[name].median_ms)
        finals = {best: ours[best], SAME_NET: same_net}
        test = contest.deltas(finals, subsample(source.split("test"), count))
        samples = contest.latencies(finals, 1 if quick else ENGINES)
    say(f"{target}: {best} of {validation}, on test images {test}")
    sizes = {STOCK: stock_bytes} | {name: each.design.cost().weight_bytes for name, each in finals.items()}
    ratio, medians = ratios(samples, best)[STOCK], {name: each.median_ms for name, each in samples.items()}
    rows = [
        Row(f"{target}_latency", ratio.value, "x", 2.5, 4.8, False),
        Row(f"{target}_delta_m_below_stock", 100 * (test[STOCK] - test[best]), "points", 100 * POINT),
        Row(f"{target}_size", stock_bytes / sizes[best], "x", None, 3.44, False),
        Row(f"{target}_latency_of_the_same_net", medians[STOCK] / medians[SAME_NET], "x"),
    ]
    raw = {
        "chosen": best,
        "median_ms": medians,
        "latency_interval": [ratio.low, ratio.high],
        "delta_m": test,
        "delta_m_on_validation_images": validation,
        "weight_bytes": sizes,
        "design": dict(ours[best].design),
    }
    return rows, raw


def searched_designs(target: str, quick: bool) -> dict[str, Candidate]:
    """The designs that a search would export, by name."""
    evaluations = ["--evaluations", QUICK_EVALUATIONS] if quick else []
    name = f"{'quick-' if quick else ''}int8-{target}"
    return kept(searched(name, "--budget", BUDGET, "--target", target, *evaluations, finetuned=not quick))


def near_stock(deltas: Mapping[str, float]) -> list[str]:
    """The designs within a point of the stock net; where none is so near, the nearest."""
    ours = [name for name in deltas if name != STOCK]
    near = [name for name in ours if deltas[name] >= deltas[STOCK] - POINT]
    return near or [max(ours, key=lambda name: deltas[name])]


def run(options: argparse.Namespace) -> Outcome:
    """Both runtimes; with `quick` ONNX Runtime alone."""
    rows, raw = [], {}
    for target in TARGETS[: 1 if options.quick else None]:
        found, raw[target] = one_target(target, options.quick)
        rows += found
    return Outcome(rows, raw)


if __name__ == "__main__":
    main(run, __doc__)
