"""The reference executor for small memories: NumPy, one operator's weights at a time, in a mixture one expert's.

M3ViT's computation reordering (Liang et al. 2022, section 3.2; Edge-MoE, Sarkar et al. 2023): a mixture routes all of
its tokens first, so that every expert has a queue. Experts then run one after another, each on its whole queue while
the next one's weights are read; one without tokens is neither run nor read; results are added at their tokens, times
their gates. Memory for weights is then two experts', however many there are. Ours: the same double buffer serves every
other operator of the net, and what is held and read is counted.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import EngineWarning, UserError, one_line
from edgemtl.runtime.session import CLOSED, EngineSpec, OperatorTime, Outputs, check_image
from edgemtl.runtime.streaming.graph import IMAGE, Operator, Stretch, read_graph, weights_of
from edgemtl.runtime.streaming.operators import OPERATORS, Routed
from edgemtl.runtime.streaming.weights import Piece, WeightStream
from edgemtl.tasks import check_tasks, map_outputs

__all__ = ["StreamingSession", "open_session"]

_THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS")
_UNFIT = (ArithmeticError, AttributeError, IndexError, KeyError, MemoryError, TypeError, ValueError)


class StreamingSession:
    """Every run reads the weights of its tasks again; output arrays are new ones too, and belong to the caller."""

    def __init__(self, folder: Path, spec: EngineSpec) -> None:
        self.spec, self.tasks = spec, spec.tasks
        self._path, weights = spec.file(folder, "graph"), spec.file(folder, "weights")
        self._graph = read_graph(self._path, weights)
        self._outputs = spec.outputs
        tensors = _tensors(self._outputs, self.tasks)
        unwritten = {*tensors} - {operator.output for operator in self._graph.operators if operator.op != "Router"}
        if unwritten:
            raise UserError(f"{self._path} writes no tensor {min(unwritten)!r}, which is a task's output: export again")
        self._stretches: dict[tuple[str, ...], Stretch] = {}
        buffer_bytes = self._graph.buffer_bytes(tensors)
        self._stream, self._closed = WeightStream(weights, buffer_bytes), False

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights in the file."""
        return self._graph.weight_bytes

    @property
    def peak_weight_bytes(self) -> int:
        """Peak bytes of weights held at once since opening: those in use and those being read ahead."""
        return self._stream.peak_bytes

    @property
    def read_bytes(self) -> int:
        """Bytes of weights read in the last run."""
        return self._stream.read_bytes

    def run(self, image: NDArray[np.float32], tasks: str | Sequence[str]) -> Outputs:
        """Raw outputs of `tasks`; raises `UserError` for an unknown task, a wrong image or a closed engine."""
        return self._run(image, tasks, _Clock())

    def operator_times(self, image: NDArray[np.float32], tasks: str | Sequence[str], runs: int) -> list[OperatorTime]:
        """Mean time of each operator; waiting for its weights is the operator `NAME.weights`, of type `Load`."""
        clock = _Clock()
        for _ in range(runs):
            self._run(image, tasks, clock)
        return clock.means(runs)

    def close(self) -> None:
        """Stop reading and free the buffer."""
        if not self._closed:
            self._closed = True
            self._stream.close()

    def _run(self, image: NDArray[np.float32], tasks: str | Sequence[str], clock: _Clock) -> Outputs:
        if self._closed:
            raise UserError(CLOSED)
        wanted = check_tasks(tasks, self.tasks)
        image = check_image(image, self.spec.input)
        if wanted not in self._stretches:
            self._stretches[wanted] = self._graph.stretch(_tensors(self._outputs, wanted))
        values = _Execution(self._stream, clock, self._path).run(self._stretches[wanted], image)
        return map_outputs(values.__getitem__, {task: self._outputs[task] for task in wanted})


def _tensors(outputs: Mapping[str, Mapping[str, str]], tasks: Iterable[str]) -> list[str]:
    return [name for task in tasks for name in outputs[task].values()]


class _Execution:
    """One run: what is held of the weights, and the tensors that some later operator reads."""

    def __init__(self, stream: WeightStream, clock: _Clock, path: Path) -> None:
        self.stream, self.clock, self.path = stream, clock, path
        self.values: dict[str, Any] = {}

    def run(self, stretch: Stretch, image: NDArray[np.float32]) -> dict[str, Any]:
        """The tensors that the stretch was made for."""
        self.stream.begin()
        self.clock.start()
        self.values[IMAGE] = image
        for operator, dropped, following in zip(stretch.operators, stretch.dropped, stretch.following, strict=True):
            try:
                inputs = [self.values[name] for name in operator.inputs]
                step = self._mixture if operator.experts else self._operator
                self.values[operator.output] = step(operator, inputs, following)
            except _UNFIT as error:
                reason = one_line(error)
                raise UserError(
                    f"{self.path}: operator {operator.op} of {operator.name} cannot be computed ({reason}): graph and "
                    "weights are damaged or do not belong together; export the bundle again"
                ) from error
            for name in dropped:
                del self.values[name]
        return self.values

    def _operator(self, operator: Operator, inputs: Sequence[Any], following: Piece | None) -> Any:
        return self._compute(operator, inputs, operator.piece, self._hold(operator, operator.piece, following))

    def _mixture(self, mixture: Operator, inputs: Sequence[Any], following: Piece | None) -> NDArray[np.float32]:
        """Experts with a queue, one after another; each adds to its own tokens."""
        x: NDArray[np.float32] = inputs[0]
        routed: Routed = inputs[1]
        flat = x.reshape(-1, x.shape[-1])
        chosen = [
            (expert, queue, gates)
            for expert, queue, gates in zip(mixture.experts, routed.queues, routed.gates, strict=True)
            if len(queue)
        ]
        pieces = [expert.piece for expert, _, _ in chosen] + [following]
        total = np.zeros_like(flat)
        for (expert, queue, gates), piece, after in zip(chosen, pieces, pieces[1:], strict=False):
            memory = self._hold(expert.operators[0], piece, after)
            values = {expert.input: flat[queue]}
            for operator in expert.operators:
                given = [values[name] for name in operator.inputs]
                values[operator.output] = self._compute(operator, given, piece, memory)
            total[queue] += gates * values[expert.output]
        self.clock.lap(mixture.name, mixture.op, mixture.block)
        return total.reshape(x.shape)

    def _hold(self, operator: Operator, piece: Piece | None, following: Piece | None) -> NDArray[np.uint8]:
        """The bytes of a piece, while the next piece is read ahead."""
        if piece is None:
            return np.empty(0, np.uint8)
        memory = self.stream.take(piece)
        if following is not None:
            self.stream.prefetch(following)
        self.clock.lap(f"{operator.name}.weights", "Load", operator.block)
        return memory

    def _compute(
        self, operator: Operator, inputs: Sequence[Any], piece: Piece | None, memory: NDArray[np.uint8]
    ) -> Any:
        weights = weights_of(operator, piece, memory)
        value = OPERATORS[operator.op].compute(inputs, operator.attributes, weights)
        self.clock.lap(operator.name, operator.op, operator.block)
        return value


class _Clock:
    """Adds up the time between looks at it, by operator."""

    def __init__(self) -> None:
        self._spent: dict[str, tuple[str, str, float]] = {}
        self._last = 0.0

    def start(self) -> None:
        """From here on."""
        self._last = perf_counter()

    def lap(self, name: str, op: str, block: str) -> None:
        """Charge the time since the last look to this operator."""
        now = perf_counter()
        before = self._spent.get(name, (op, block, 0.0))[2]
        self._spent[name] = (op, block, before + now - self._last)
        self._last = now

    def means(self, runs: int) -> list[OperatorTime]:
        """Milliseconds a run."""
        return [OperatorTime(name, op, block, 1000 * s / runs) for name, (op, block, s) in self._spent.items()]


def open_session(
    folder: Path, spec: EngineSpec, threads: int, modes: Sequence[Sequence[str]] | None = None
) -> StreamingSession:
    """Open an engine that the target `streaming` wrote; every subset is ready, whatever `modes` says.

    NumPy's matrix library decides on threads when it is loaded, so a number that the environment does not name as well
    is answered with a warning.
    """
    if threads and str(threads) not in (os.environ.get(name) for name in _THREADS):
        warnings.warn(
            f"NumPy cannot be held to {threads} threads once it is loaded: start with OMP_NUM_THREADS={threads} set",
            EngineWarning,
            stacklevel=2,
        )
    return StreamingSession(folder, spec)
