"""Is the engine still the net? Each task by the difference of its tensors and by its own metric, on real samples."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from edgemtl.bundle import OutputParity, Parity
from edgemtl.data import Sample, Split, collate
from edgemtl.errors import UserError
from edgemtl.models import MultiTaskNet, run_blocks
from edgemtl.models.graph import trace
from edgemtl.models.quantization import Ranges
from edgemtl.runtime import Outputs
from edgemtl.targets import ExportTarget, emulated, is_runnable, measurer_of
from edgemtl.tasks import Task, by_tensor, map_outputs
from edgemtl.train import Scorer

__all__ = [
    "Difference",
    "Tolerance",
    "check_parity",
    "first_divergence",
    "measure_parity",
    "problem_of",
    "simulated_run",
]

PARITY_SPLIT: Split = "validation"
_NEGLIGIBLE = 1e-2
"""A metric below this (metres, degrees or a fraction) is as good as zero: changes are taken relative to it."""


@dataclass(frozen=True)
class Tolerance:
    """How far an engine may be from the trained FP32 net.

    Where a task's path is all FP32, its tensors may differ by `float_error` of their largest value (of 1 where that
    is less) and its metric by the fraction `float_metric`. Where INT8 or BF16 is on the path, its metric may be worse
    by the fraction `reduced_metric`. `diverging` is the relative error at which a block is named in an error.
    """

    float_error: float = 1e-3
    float_metric: float = 0.005
    reduced_metric: float = 0.03
    diverging: float = 0.1


Run = Callable[[NDArray[np.float32], Sequence[str]], Outputs]
"""Raw outputs of tasks for an image: an engine's, or those that a simulation says it will have."""


def simulated_run(net: MultiTaskNet, precision: Mapping[str, str], ranges: Ranges | None, target: ExportTarget) -> Run:
    """Simulation of a target's engine, for a machine where it cannot run or would compute wrongly."""
    simulation = emulated(target, net, precision, ranges)

    def run(image: NDArray[np.float32], tasks: Sequence[str]) -> Outputs:
        outputs = map_outputs(Tensor.numpy, simulation(torch.from_numpy(image)))
        return {task: outputs[task] for task in tasks}

    return run


@dataclass
class Difference:
    """How far one output of an engine is from the net's, over images: the largest of any value, sums of squares."""

    largest: float = 0.0
    apart: float = 0.0
    norm: float = 0.0

    def add(self, actual: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        """Count one image's output in."""
        difference = (actual - expected).astype(np.float64)
        self.largest = max(self.largest, float(np.abs(difference).max()))
        self.apart += float(np.square(difference).sum())
        self.norm += float(np.square(expected, dtype=np.float64).sum())

    def parity(self, unit: str) -> OutputParity:
        """The entry of the manifest, over all images."""
        relative = float(np.sqrt(self.apart / max(self.norm, 1e-30)))
        return OutputParity(max_abs_error=self.largest, relative_error=relative, unit=unit or None)


def measure_parity(net: MultiTaskNet, run: Run, samples: Sequence[Sample]) -> dict[str, Parity]:
    """Errors of every output and metrics of every task, net against engine, over the samples one by one.

    Raises `UserError` for an output of the engine that is not finite.
    """
    scorers = {"torch": Scorer(net.tasks), "engine": Scorer(net.tasks)}
    names = [task.name for task in net.tasks]
    apart = {task.name: {output.name: Difference() for output in task.outputs} for task in net.tasks}
    for sample in samples:
        batch = collate([sample], net.tasks)
        with torch.no_grad():
            expected = map_outputs(Tensor.numpy, net(torch.from_numpy(batch.image)))
        outputs = map_outputs(np.copy, run(batch.image, names))
        _check_finite(outputs)
        scorers["torch"].update(expected, batch)
        scorers["engine"].update(outputs, batch)
        for task, differences in apart.items():
            for name, difference in differences.items():
                difference.add(outputs[task][name], expected[task][name])
    scores = {kind: scorer.compute() for kind, scorer in scorers.items()}
    return {
        task.name: Parity(
            outputs={output.name: apart[task.name][output.name].parity(output.unit) for output in task.outputs},
            metric=task.metric.name,
            torch=scores["torch"][task.name][task.metric.name],
            engine=scores["engine"][task.name][task.metric.name],
            images=len(samples),
            split=PARITY_SPLIT,
        )
        for task in net.tasks
    }


def _check_finite(outputs: Outputs) -> None:
    """`UserError` for an output that no error or metric can be told of."""
    for task, tensors in outputs.items():
        for name, value in tensors.items():
            if not np.isfinite(value).all():
                raise UserError(
                    f"task {task}: the engine's output {name} is not finite on {PARITY_SPLIT} images: search another "
                    "design, under other limits or with another --seed"
                )


def check_parity(
    net: MultiTaskNet,
    target: ExportTarget,
    precision: Mapping[str, str],
    ranges: Ranges | None,
    parity: Mapping[str, Parity],
    image: NDArray[np.float32],
    tolerance: Tolerance,
) -> dict[str, Parity]:
    """The parity with what was allowed of each task, where the engine keeps it.

    Raises `UserError` naming task, figures and first diverging block where an engine is too far from the net.

    `image` (1, 3, H, W), normalised, is what the blocks are compared on.
    """
    parities = {}
    for task in net.tasks:
        reduced = _is_reduced(net, task.name, precision)
        problem = problem_of(task, parity[task.name], reduced, tolerance)
        if problem:
            limit = tolerance.diverging if reduced else tolerance.float_error
            where = first_divergence(net, target, precision, ranges, image, limit)
            raise UserError(f"engine for {target.traits.name}, task {task.name}: {problem}; {where}")
        parities[task.name] = parity[task.name].model_copy(update=_allowed(reduced, tolerance))
    return parities


def _allowed(reduced: bool, tolerance: Tolerance) -> dict[str, float | None]:
    if reduced:
        return {"metric_allowed": tolerance.reduced_metric, "difference_allowed": None}
    return {"metric_allowed": tolerance.float_metric, "difference_allowed": tolerance.float_error}


def _is_reduced(net: MultiTaskNet, task: str, precision: Mapping[str, str]) -> bool:
    path = [block for block, owner in net.block_tasks.items() if owner in (None, task)]
    return precision.get("engine", "fp32") != "fp32" or any(precision.get(block) == "int8" for block in path)


def problem_of(
    task: Task, parity: Parity, reduced: bool, tolerance: Tolerance, reference: str = "in PyTorch"
) -> str | None:
    """The problem with one task's parity, of INT8 or BF16 on its path where `reduced`; None where there is none.

    `reference` says in words where the net's own score is from.
    """
    change = (parity.engine - parity.torch) / max(abs(parity.torch), _NEGLIGIBLE)
    worse = -change if task.metric.higher_is_better else change
    scores = f"{parity.metric} {parity.torch:.4g} {reference}, {parity.engine:.4g} in the engine"
    if reduced:
        if worse <= tolerance.reduced_metric:
            return None
        return f"{scores}, {worse:.1%} worse where {tolerance.reduced_metric:.1%} is allowed"
    if abs(change) > tolerance.float_metric:
        return f"{scores}, {abs(change):.1%} apart where {tolerance.float_metric:.1%} is allowed"
    beyond = [
        each.max_abs_error
        for each in parity.outputs.values()
        if min(each.relative_error, each.max_abs_error) > tolerance.float_error
    ]
    if beyond:
        return f"its FP32 outputs differ by up to {max(beyond):.2g} where {tolerance.float_error:.2g} is allowed"
    return None


def first_divergence(
    net: MultiTaskNet,
    target: ExportTarget,
    precision: Mapping[str, str],
    ranges: Ranges | None,
    image: NDArray[np.float32],
    limit: float,
) -> str:
    """Where an engine leaves its simulation, or else where precision itself leaves the net; a clause for an error.

    Errors are norms of differences over norms; `limit` is the one that counts. The net is built once more with every
    block's output exposed, and blocks are compared in order of execution.
    """
    exposed = _Exposed(net)
    ranges = _ranges_of(exposed, net, ranges)
    pixels = torch.from_numpy(image)
    with torch.no_grad():
        exact = _arrays(exposed(pixels))
    simulated = _arrays(emulated(target, exposed, precision, ranges)(pixels))
    exposed_run = simulated
    if is_runnable(target, precision):
        exposed_run = _exposed_outputs(exposed, target, precision, ranges, image)
    errors = {name: _relative(exposed_run[name], simulated[name]) for name in exact}
    for name, error in errors.items():
        if error > limit:
            return (
                f"first block whose output diverges: {name} ({error:.2g} from the simulation of its precision): "
                "the runtime computes it differently; keep it float or report the block"
            )
    losses = {name: _relative(simulated[name], exact[name]) for name in exact}
    first = next((name for name, loss in losses.items() if loss > limit), None)
    if first is None:
        worst = max(losses, key=lambda name: losses[name])
        return f"no block's output diverges by more than {limit:.2g}, most does {worst} ({losses[worst]:.2g} from FP32)"
    return (
        f"first block whose output diverges: {first} ({losses[first]:.2g} from FP32, by precision alone): "
        "keep it float, calibrate on more images, or allow a larger tolerance"
    )


def _arrays(outputs: Mapping[str, Mapping[str, Tensor]]) -> dict[str, NDArray[np.float32]]:
    return {name: value.numpy() for name, value in by_tensor(outputs).items()}


class _Exposed(nn.Module):
    """A net whose tasks are its blocks, each with one output; it stands in for the net wherever one is traced."""

    def __init__(self, net: MultiTaskNet) -> None:
        super().__init__()
        self.blocks, self.block_tasks, self.input_size = net.blocks, net.block_tasks, net.input_size
        self.wiring, self.names = net.wiring, [step.name for step in net.wiring]

    def forward(self, image: Tensor) -> dict[str, dict[str, Tensor]]:
        """(N, 3, H, W) to one tensor a block."""
        values = run_blocks(self.blocks, self.wiring, image)
        return {name: {name: values[name]} for name in self.names}


def _ranges_of(exposed: nn.Module, net: MultiTaskNet, ranges: Ranges | None) -> Ranges | None:
    """Ranges by the names that tensors have in the exposed net: an output is called like its block there."""
    if ranges is None:
        return None
    before = {node.name: node.output for node in trace(net).nodes}
    renamed = {node.output: before[node.name] for node in trace(exposed).nodes if node.name in before}
    limits = dict(ranges.limits)
    return Ranges(limits | {new: limits[old] for new, old in renamed.items() if old in limits})


def _exposed_outputs(
    exposed: _Exposed,
    target: ExportTarget,
    precision: Mapping[str, str],
    ranges: Ranges | None,
    image: NDArray[np.float32],
) -> dict[str, NDArray[np.float32]]:
    with tempfile.TemporaryDirectory() as folder:
        target.build(exposed, precision, ranges, Path(folder))  # type: ignore[arg-type]
        names = exposed.names
        with closing(measurer_of(target).open(Path(folder), modes=[names])) as session:
            return {name: value.copy() for name, value in by_tensor(session.run(image, names)).items()}


def _relative(actual: NDArray[np.float32], expected: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(actual - expected) / max(float(np.linalg.norm(expected)), 1e-12))
