"""Any ONNX file as a model to profile: every output is a task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, Protocol

from edgemtl.errors import UserError, first_line, unknown_name
from edgemtl.profiling.blocks import Blocks, find_blocks, named_model
from edgemtl.profiling.energy import draw_energy
from edgemtl.profiling.file_onnxruntime import OnnxRuntimeFile
from edgemtl.profiling.file_openvino import OpenVinoFile
from edgemtl.profiling.file_tensorrt_rtx import refuse_tensorrt_rtx
from edgemtl.profiling.inputs import (
    SIDES,
    Declared,
    InputChoice,
    ModelInput,
    assumptions,
    made_up,
    settle_inputs,
    sizes_text,
)
from edgemtl.profiling.measurer import Observation
from edgemtl.profiling.names import short_name, short_names
from edgemtl.profiling.samples import Samples
from edgemtl.profiling.schema import Opening
from edgemtl.profiling.timing import compare
from edgemtl.progress import Report
from edgemtl.results import FigureKind
from edgemtl.runtime import OperatorTime

__all__ = ["FileRuntime", "OnnxFile", "open_file"]


class FileRuntime(Protocol):
    """A runtime with an ONNX file open in it. `includes` says what one of its calls contains."""

    name: str
    includes: str
    inputs: Sequence[Declared]
    outputs: Sequence[str]

    def run_once(self, feeds: Mapping[str, Any]) -> None:
        """Run everything once; raises the runtime's own kinds where these inputs do not fit, `UserError` for good."""
        ...

    def call(self, outputs: Sequence[str], feeds: Mapping[str, Any]) -> Callable[[], object]:
        """A call that computes these outputs, after `run_once` took the same inputs."""
        ...

    def operator_times(
        self, outputs: Sequence[str], feeds: Mapping[str, Any], runs: int
    ) -> Mapping[tuple[str, str], float]:
        """Mean ms of each operator by its name and kind, by the runtime's own profiler."""
        ...

    def close(self) -> None:
        """Free what was opened."""
        ...


_RUNTIMES: Mapping[str, Callable[[Path, int], FileRuntime]] = {
    "onnxruntime": OnnxRuntimeFile,
    "openvino": OpenVinoFile,
    "tensorrt-rtx": refuse_tensorrt_rtx,
}


def open_file(path: Path, target: str | None, threads: int, choice: InputChoice) -> OnnxFile:
    """The file in the runtime of `target`, ONNX Runtime by default; `UserError` for others and where it is refused."""
    target = target or "onnxruntime"
    if target not in _RUNTIMES:
        raise unknown_name(f"target that runs the ONNX file {path}:", target, list(_RUNTIMES))
    return OnnxFile(path, _RUNTIMES[target](path, threads), choice)


class OnnxFile:
    """Any ONNX file: every output is a task, called like it (shortened where it is long)."""

    source: Literal["bundle", "engine", "onnx"] = "onnx"
    kind: FigureKind = "measured"
    engine_sha256: str | None = None
    opening: Opening | None = None
    observation: Observation | None = None

    def __init__(self, path: Path, runtime: FileRuntime, choice: InputChoice) -> None:
        self.name, self._path, self.choice = short_name(path.name), path, choice
        self.graph: Path | None = path
        self._opened = runtime
        self.target = self.runtime = runtime.name
        self.includes = runtime.includes
        self._heads = short_names(runtime.outputs)
        self.heads: Mapping[str, str] | None = self._heads
        self.tasks = tuple(self._heads)

    @cached_property
    def _feeds(self) -> dict[str, Any]:
        return made_up(self._inputs(SIDES[0]), self.choice.integers, self.name)

    def _inputs(self, side: int) -> tuple[ModelInput, ...]:
        return settle_inputs(self._opened.inputs, self.choice.shapes, self.name, side)

    def settle(self) -> tuple[list[str], float]:
        """Run once with every size settled: the first open height and width, and ones or zeros, that it runs on.

        Returns the assumptions, one line each, and the duration of that run in ms.
        """
        tried: dict[tuple[tuple[ModelInput, ...], int], str] = {}
        for side, integers in product(SIDES, (1, 0)):
            inputs = self._inputs(side)
            if (inputs, integers) in tried:
                continue
            feeds = made_up(inputs, integers, self.name)
            start = perf_counter()
            try:
                self._opened.run_once(feeds)
            except UserError as error:
                raise UserError(f"{self._path}: {error}") from error
            except Exception as error:  # the runtime's own kinds, one for each of its statuses
                tried[inputs, integers] = first_line(error)
            else:
                spent_ms = 1000 * (perf_counter() - start)
                self._feeds = feeds
                self.choice = InputChoice({each.name: each.sizes for each in inputs}, integers)
                return assumptions(inputs), spent_ms
        (inputs, _), reason = next(iter(tried.items()))
        fed = ", ".join(f"{short_name(each.name)}={sizes_text(each.sizes) or 'one value'}" for each in inputs)
        raise UserError(
            f"{self._path} does not run on {fed or 'no input'} ({reason}): choose sizes with --shape NAME=SIZES"
        )

    def call(self, tasks: Sequence[str]) -> Callable[[], object]:
        """A call that runs the outputs `tasks`."""
        return self._opened.call(self._tensors(tasks), self._feeds)

    def compare(
        self, modes: Mapping[str, Sequence[str]], rounds: int, *, burst: int, report: Report
    ) -> dict[str, Samples]:
        """Latencies of each set of outputs, in turns."""
        return compare({name: self.call(tasks) for name, tasks in modes.items()}, rounds, burst=burst, report=report)

    def draw_energy(self, modes: Mapping[str, Sequence[str]], *, report: Report) -> Mapping[str, Any]:
        """Energy of each set of outputs."""
        return draw_energy({name: self.call(tasks) for name, tasks in modes.items()}, report=report)

    @property
    def owners(self) -> Mapping[str, str]:
        """The output that alone needs a block, for each such block, from the graph's wiring."""
        return self._blocks.owners

    @cached_property
    def _blocks(self) -> Blocks:
        return find_blocks(named_model(self._path).graph, self._heads)

    def operators(self, tasks: Sequence[str], runs: int) -> list[OperatorTime]:
        """Times of every operator, from the runtime's own profile of `runs` calls."""
        times = self._opened.operator_times(self._tensors(tasks), self._feeds, runs)
        return [OperatorTime(name, kind, self._blocks.of(name), ms) for (name, kind), ms in times.items()]

    def close(self) -> None:
        """Release the model."""
        self._opened.close()

    def _tensors(self, tasks: Sequence[str]) -> list[str]:
        return [name for task, name in self._heads.items() if task in tasks]
