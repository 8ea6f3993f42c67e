"""What can be profiled: a bundle, an engine folder, or any ONNX file."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgemtl._onnx import read_onnx
from edgemtl.bundle import MANIFEST_FILE
from edgemtl.errors import MissingDependencyError, UserError, unknown_name
from edgemtl.runtime import Engine, EngineSpec, OperatorTime, Session, open_engine

if TYPE_CHECKING:
    import onnx
    import onnxruntime as ort

__all__ = ["Subject", "open_subject"]

ENGINE_FILE = "engine.json"
SourceKind = Literal["bundle", "engine", "onnx"]
_NUMPY_TYPES = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(int64)": np.int64,
    "tensor(int32)": np.int32,
    "tensor(uint8)": np.uint8,
    "tensor(int8)": np.int8,
    "tensor(bool)": np.bool_,
}


class Subject(Protocol):
    """Something open that runs any subset of its `tasks`.

    `includes` says what one timed call contains; `graph` is an ONNX file of it, where there is one to count.
    """

    name: str
    source: SourceKind
    target: str
    runtime: str
    tasks: tuple[str, ...]
    includes: str
    graph: Path | None

    def call(self, tasks: Sequence[str]) -> Callable[[], object]:
        """A call that runs `tasks` once on a fixed input."""
        ...

    def operators(self, tasks: Sequence[str], runs: int) -> list[OperatorTime]:
        """Mean time of each operator, by the runtime's own profiler."""
        ...

    def close(self) -> None:
        """Free what was opened."""
        ...


def open_subject(path: Path, target: str | None = None, threads: int = 0) -> Subject:
    """Open a bundle (a folder with `manifest.json`), an engine folder (`engine.json`) or an ONNX file.

    A bundle is opened as `edgemtl.runtime.Engine` does, with the engine of `target` or its first. Raises `UserError`
    for anything else, and for a target that the path does not have.
    """
    if path.is_file():
        if target not in (None, "onnxruntime"):
            raise UserError(f"{path} is one ONNX file: only onnxruntime runs it, not {target!r}; drop --target")
        return _OnnxFile(path, threads)
    if (path / MANIFEST_FILE).is_file():
        engine = Engine(path, target, threads)
        folder = path / engine.manifest.targets[engine.target].folder
        return _EngineFolder(path.resolve().name, "bundle", folder, engine.session)
    if (path / ENGINE_FILE).is_file():
        found = EngineSpec.read(path).target
        if target not in (None, found):
            raise unknown_name(f"target of engine {path}:", str(target), [found])
        return _EngineFolder(path.resolve().name, "engine", path, open_engine(path, threads))
    raise UserError(
        f"{path} cannot be profiled: give a bundle (manifest.json), an engine folder (engine.json) or a .onnx file"
    )


class _EngineFolder:
    """A task-aware engine behind `edgemtl.runtime`."""

    def __init__(self, name: str, source: SourceKind, folder: Path, session: Session) -> None:
        spec = EngineSpec.read(folder)
        self.name, self.source, self.target, self.runtime = name, source, spec.target, spec.runtime
        self._session = session
        self.tasks = session.tasks
        self.graph = next((folder / name for name in spec.files.values() if name.endswith(".onnx")), None)
        self.includes = "one run of the engine on a normalised image; no decoding, no post-processing"
        self._image = np.random.default_rng(0).standard_normal(spec.input, dtype=np.float32)

    def call(self, tasks: Sequence[str]) -> Callable[[], object]:
        session, image, wanted = self._session, self._image, tuple(tasks)
        return lambda: session.run(image, wanted)

    def operators(self, tasks: Sequence[str], runs: int) -> list[OperatorTime]:
        return self._session.operator_times(self._image, tasks, runs)

    def close(self) -> None:
        self._session.close()


class _OnnxFile:
    """Any ONNX file: every output is a task, and a subset of outputs is a graph of its own.

    ONNX Runtime computes a whole graph whatever outputs are asked for, so each subset is cut out and opened by
    itself.
    """

    source: SourceKind = "onnx"
    target = runtime = "onnxruntime"
    includes = "one run of the outputs' own subgraph by ONNX Runtime on random inputs; no post-processing"

    def __init__(self, path: Path, threads: int) -> None:
        self.name, self._threads, self._path = path.name, threads, path
        self.graph: Path | None = path
        self._whole = self._open(None)
        self._feeds = {info.name: _random_input(info, path) for info in self._whole.get_inputs()}
        self.tasks = tuple(info.name for info in self._whole.get_outputs())

    def call(self, tasks: Sequence[str]) -> Callable[[], object]:
        wanted = [task for task in self.tasks if task in tasks]
        session = self._whole if len(wanted) == len(self.tasks) else self._open(wanted)
        feeds = {info.name: self._feeds[info.name] for info in session.get_inputs()}
        return lambda: session.run(wanted, feeds)

    def operators(self, tasks: Sequence[str], runs: int) -> list[OperatorTime]:
        wanted = [task for task in self.tasks if task in tasks]
        with tempfile.TemporaryDirectory() as scratch:
            session = self._open(wanted if len(wanted) < len(self.tasks) else None, str(Path(scratch) / "profile"))
            feeds = {info.name: self._feeds[info.name] for info in session.get_inputs()}
            for _ in range(runs):
                session.run(wanted, feeds)
            events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        return _kernel_times(events, runs, _producers(self._path))

    def close(self) -> None:
        del self._whole

    def _open(self, outputs: list[str] | None, profile: str | None = None) -> ort.InferenceSession:
        try:
            import onnxruntime as ort
        except ImportError as error:
            raise MissingDependencyError("onnxruntime", "all", f"profiling {self._path}") from error
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = self._threads, 3
        if profile is not None:
            options.enable_profiling, options.profile_file_prefix = True, profile
        model = str(self._path) if outputs is None else _cut(self._path, outputs).SerializeToString()
        try:
            return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"ONNX Runtime {ort.__version__} cannot open {self._path}: {reason}") from error


def _cut(path: Path, outputs: list[str]) -> onnx.ModelProto:
    """The part of a graph that `outputs` need, with the inputs that it reads; what `If` reads inside counts too."""
    model = read_onnx(path, external_data=True)
    graph, needed, kept = model.graph, set(outputs), []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= _read_by(node)
            kept.append(node)
    for field, wanted in (
        (graph.node, kept[::-1]),
        (graph.initializer, [tensor for tensor in graph.initializer if tensor.name in needed]),
        (graph.input, [info for info in graph.input if info.name in needed]),
        (graph.output, [info for info in graph.output if info.name in outputs]),
    ):
        copies = [type(item).FromString(item.SerializeToString()) for item in wanted]
        del field[:]
        field.extend(copies)
    return model


def _read_by(node: onnx.NodeProto) -> set[str]:
    """Names that a node reads, inside its bodies too (`If`, `Loop`, `Scan`), which may come from around it."""
    bodies = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return set(node.input).union(
        *(_read_by(inner) for body in bodies for inner in body.node),
        *({output.name for output in body.output} for body in bodies),
    )


def _random_input(info: Any, path: Path) -> NDArray[Any]:
    """A seeded input of the declared shape; a batch that is left open becomes 1, flags become true."""
    kind = _NUMPY_TYPES.get(info.type)
    if kind is None:
        raise UserError(
            f"input {info.name!r} of {path} is a {info.type}, which cannot be made up: profile another graph"
        )
    open_sizes = [size for size in info.shape[1:] if not isinstance(size, int) or size < 1]
    if open_sizes:
        raise UserError(
            f"input {info.name!r} of {path} has the open shape {info.shape}: fix its sizes, then profile it"
        )
    shape = [size if isinstance(size, int) and size > 0 else 1 for size in info.shape]
    values = np.random.default_rng(0).standard_normal(shape)
    return np.ones(shape, kind) if kind in (np.bool_, np.int64, np.int32) else values.astype(kind)


def _producers(path: Path) -> dict[str, str]:
    """The node that makes each tensor: ONNX Runtime calls a node whose layout it changed after its output."""
    graph = read_onnx(path).graph
    return {output: node.name for node in graph.node for output in node.output if node.name}


def _kernel_times(events: Sequence[dict[str, Any]], runs: int, producers: Mapping[str, str]) -> list[OperatorTime]:
    """Operators of ONNX Runtime's trace, summed by node; one that runs others is left out: they count themselves."""
    spent: dict[tuple[str, str], float] = {}
    for event in events:
        label = str(event.get("name", ""))
        kind = str(event.get("args", {}).get("op_name", ""))
        if label.endswith("_kernel_time") and kind and kind not in ("If", "Loop", "Scan"):
            label = label.removesuffix("_kernel_time")
            key = (producers.get(label.removesuffix("_nchwc"), label), kind)
            spent[key] = spent.get(key, 0.0) + float(event.get("dur", 0)) / 1000
    return [OperatorTime(name, kind, _block(name), ms / runs) for (name, kind), ms in spent.items()]


def _block(name: str) -> str:
    """The outermost scope of an exporter's node name (`/stage1/conv/Conv`, `blocks.s1_1.conv`), empty without one."""
    parts = [part for part in re.split(r"[/.]", name) if part]
    with suppress(ValueError):
        parts.remove("blocks")
    return parts[0] if len(parts) > 1 else ""
