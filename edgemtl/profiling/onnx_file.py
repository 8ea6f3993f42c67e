"""Any ONNX file as a model to profile: every output is a task."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal

from edgemtl.errors import MissingDependencyError, UserError
from edgemtl.files.onnx import read_onnx
from edgemtl.profiling.bounded import FATAL, run_once
from edgemtl.profiling.energy import draw_energy
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
from edgemtl.runtime import OperatorTime, kernel_times

if TYPE_CHECKING:
    import onnx
    import onnxruntime as ort

__all__ = ["OnnxFile"]


class OnnxFile:
    """Any ONNX file: every output is a task, called like it (shortened where it is long).

    ONNX Runtime computes a whole graph whatever outputs are asked for, so each subset is cut out and opened by
    itself.
    """

    source: Literal["bundle", "engine", "onnx"] = "onnx"
    target = runtime = "onnxruntime"
    kind: FigureKind = "measured"
    engine_sha256: str | None = None
    opening: Opening | None = None
    observation: Observation | None = None
    includes = "one run of the outputs' own subgraph by ONNX Runtime on random inputs; no post-processing"

    def __init__(self, path: Path, threads: int, choice: InputChoice) -> None:
        self.name, self._threads, self._path, self.choice = short_name(path.name), threads, path, choice
        self.graph: Path | None = path
        self._whole = self._open(None)
        self.heads: Mapping[str, str] | None = short_names(info.name for info in self._whole.get_outputs())
        self.tasks = tuple(self.heads)

    @cached_property
    def _feeds(self) -> dict[str, Any]:
        return made_up(self._inputs(SIDES[0]), self.choice.integers, self.name)

    def _inputs(self, side: int) -> tuple[ModelInput, ...]:
        declared = [Declared(each.name, each.type, tuple(each.shape)) for each in self._whole.get_inputs()]
        return settle_inputs(declared, self.choice.shapes, self.name, side)

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
                run_once(self._whole, None, feeds)
            except UserError as error:
                raise UserError(f"{self._path}: {error}") from error
            except Exception as error:  # the runtime's own kinds, one for each of its statuses
                tried[inputs, integers] = _first_line(error)
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
        session, wanted = self._session(tasks)
        feeds = {info.name: self._feeds[info.name] for info in session.get_inputs()}
        return lambda: session.run(wanted, feeds)

    def compare(
        self, modes: Mapping[str, Sequence[str]], rounds: int, *, burst: int, report: Report
    ) -> dict[str, Samples]:
        """Latencies of each set of outputs, in turns."""
        return compare({name: self.call(tasks) for name, tasks in modes.items()}, rounds, burst=burst, report=report)

    def draw_energy(self, modes: Mapping[str, Sequence[str]], *, report: Report) -> Mapping[str, Any]:
        """Energy of each set of outputs."""
        return draw_energy({name: self.call(tasks) for name, tasks in modes.items()}, report=report)

    @cached_property
    def owners(self) -> dict[str, str]:
        """The output that alone needs a block, for each such block, from the graph's wiring."""
        readers: dict[str, set[str]] = {name: {task} for task, name in (self.heads or {}).items()}
        users: dict[str, set[str]] = {}
        for node in reversed(read_onnx(self._path).graph.node):
            needed_by = set().union(*(readers.get(name, ()) for name in node.output))
            users.setdefault(_block(node.name), set()).update(needed_by)
            for name in node.input:
                readers.setdefault(name, set()).update(needed_by)
        return {block: tasks.pop() for block, tasks in users.items() if block and len(tasks) == 1 < len(self.tasks)}

    def operators(self, tasks: Sequence[str], runs: int) -> list[OperatorTime]:
        """Times of every operator, from the runtime's own profile of `runs` calls."""
        with tempfile.TemporaryDirectory() as scratch:
            session, wanted = self._session(tasks, str(Path(scratch) / "profile"))
            feeds = {info.name: self._feeds[info.name] for info in session.get_inputs()}
            for _ in range(runs):
                session.run(wanted, feeds)
            times = kernel_times(session, runs, _producers(self._path))
        return [OperatorTime(name, kind, _block(name), ms) for (name, kind), ms in times.items()]

    def close(self) -> None:
        """Release the model."""
        del self._whole

    def _session(self, tasks: Sequence[str], profile: str | None = None) -> tuple[ort.InferenceSession, list[str]]:
        """A session of the part that `tasks` need, and their tensors."""
        wanted = [name for task, name in (self.heads or {}).items() if task in tasks]
        if len(wanted) < len(self.tasks):
            return self._open(wanted, profile), wanted
        return (self._whole if profile is None else self._open(None, profile)), wanted

    def _open(self, outputs: list[str] | None, profile: str | None = None) -> ort.InferenceSession:
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise MissingDependencyError("onnxruntime", "all", f"profiling {self._path}") from error
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = self._threads, FATAL
        options.add_session_config_entry(
            "session.model_external_initializers_file_folder_path", str(self._path.parent.resolve())
        )
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, profile
        try:
            model = str(self._path) if outputs is None else _cut(self._path, outputs).SerializeToString()
            return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"], enable_fallback=0)
        except Exception as error:
            raise UserError(f"ONNX Runtime {ort.__version__} cannot open {self._path}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:400]


def _cut(path: Path, outputs: list[str]) -> onnx.ModelProto:
    """The part of a graph that `outputs` need, with the inputs that it reads; what `If` reads inside counts too.

    Data outside of the file stay there.
    """
    from edgemtl.profiling.shapes import read_by

    model = read_onnx(path)
    graph, needed, nodes = model.graph, set(outputs), []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= read_by(node)
            nodes.append(node)
    results = {info.name: info for info in graph.output}
    for field, wanted in (
        (graph.node, nodes[::-1]),
        (graph.initializer, [tensor for tensor in graph.initializer if tensor.name in needed]),
        (graph.sparse_initializer, [each for each in graph.sparse_initializer if each.values.name in needed]),
        (graph.input, [info for info in graph.input if info.name in needed]),
        (graph.output, [results[name] for name in outputs]),
    ):
        copies = [type(item).FromString(item.SerializeToString()) for item in wanted]
        del field[:]
        field.extend(copies)
    return model


def _producers(path: Path) -> dict[str, str]:
    """The node that makes each tensor."""
    graph = read_onnx(path).graph
    return {output: node.name for node in graph.node for output in node.output if node.name}


def _block(name: str) -> str:
    """The outermost scope of an exporter's node name (`/stage1/conv/Conv`, `blocks.s1_1.conv`), empty without one."""
    parts = [part for part in re.split(r"[/.]", name) if part]
    with suppress(ValueError):
        parts.remove("blocks")
    return parts[0] if len(parts) > 1 else ""
