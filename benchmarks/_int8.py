"""INT8 engines as two benchmarks hold them: all blocks of three sizes of net, by the host's scheme and the portable."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from edgemtl.data import Sample
from edgemtl.devices import HOST, any_processor, load_device
from edgemtl.nas.evaluation import Candidate, Evaluator
from edgemtl.runtime import Session, open_engine
from edgemtl.spaces import Space
from edgemtl.targets import ExportTarget, find_target
from edgemtl.tasks import relative_change

TARGETS = ("onnxruntime", "openvino")
Metrics = Mapping[str, Mapping[str, float]]


def schemes(target: str) -> dict[str, ExportTarget]:
    """The target with the scheme of this processor, and with the one that is right on every processor."""
    host = load_device(HOST)
    return {"own": find_target(target, host), "portable": find_target(target, any_processor(host))}


def candidates(space: Space, evaluator: Evaluator, quick: bool) -> dict[str, Candidate]:
    """Designs of three sizes with every block in INT8 and the rest in FP32, calibrated."""
    sizes = {"smallest": space.smallest(), "middle": space.middle(), "largest": space.largest()}
    found = {}
    for name, design in list(sizes.items())[: 1 if quick else 3]:
        wanted = {"int8", "fp32"}
        eight = next(each for each in space.uniform(design) if {*each.precision.values()} == wanted)
        found[name] = evaluator.candidate(eight)
    return found


@contextmanager
def opened_int8(candidate: Candidate, target: ExportTarget) -> Iterator[Session]:
    """The candidate's engine, for all tasks."""
    with TemporaryDirectory() as folder:
        target.build(candidate.net, candidate.design.precision, candidate.ranges, Path(folder))
        tasks = [task.name for task in candidate.net.tasks]
        with closing(open_engine(Path(folder), modes=[tasks])) as session:
            yield session


def worst_loss(evaluator: Evaluator, found: Metrics, exact: Metrics) -> float:
    """The largest loss of any task's deciding metric, as a fraction; negative where all are better."""
    return max(-relative_change(task, found[task.name], exact[task.name]) for task in evaluator.source.tasks)


def samples_of(evaluator: Evaluator, quick: bool) -> Sequence[Sample]:
    """Test images, which nothing was calibrated on."""
    return evaluator.test_samples[: 6 if quick else 48]
