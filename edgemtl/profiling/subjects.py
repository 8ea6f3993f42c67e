"""Models that can be profiled: a bundle, an engine folder, or any ONNX file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Literal, Protocol

import numpy as np

from edgemtl.bundle import MANIFEST_FILE
from edgemtl.errors import UserError, unknown_name
from edgemtl.profiling.inputs import InputChoice
from edgemtl.profiling.names import short_name
from edgemtl.profiling.onnx_file import OnnxFile
from edgemtl.runtime import Engine, EngineSpec, OperatorTime, Session, open_engine

__all__ = ["ProfiledModel", "open_subject"]

ENGINE_FILE = "engine.json"
SourceKind = Literal["bundle", "engine", "onnx"]


class ProfiledModel(Protocol):
    """Something open that runs any subset of its `tasks`.

    `includes` says what one timed call contains. `graph` is an ONNX file of it, where there is one to count, and
    `heads` the output tensor of each task there, where the file does not tell. `choice` is what its inputs are, and
    `engine_sha256` what tells an engine of a bundle from any other (`Manifest.engine_sha256`).
    """

    name: str
    source: SourceKind
    target: str
    runtime: str
    tasks: tuple[str, ...]
    includes: str
    graph: Path | None
    heads: Mapping[str, str] | None
    choice: InputChoice
    engine_sha256: str | None

    @property
    def owners(self) -> Mapping[str, str]:
        """The task of each block that belongs to one alone."""
        ...

    def settle(self) -> tuple[list[str], float]:
        """Run once, on inputs that `choice` is afterwards: what was assumed of them, in lines, and that run's ms.

        Raises `UserError` where it does not run.
        """
        ...

    def call(self, tasks: Sequence[str]) -> Callable[[], object]:
        """A call that runs `tasks` once on a fixed input."""
        ...

    def operators(self, tasks: Sequence[str], runs: int) -> list[OperatorTime]:
        """Mean time of each operator, by the runtime's own profiler."""
        ...

    def close(self) -> None:
        """Free what was opened."""
        ...


def open_subject(
    path: Path, target: str | None = None, threads: int = 0, choice: InputChoice | None = None
) -> ProfiledModel:
    """Open a bundle (a folder with `manifest.json`), an engine folder (`engine.json`) or an ONNX file.

    A bundle is opened as `edgemtl.runtime.Engine` does, with the engine of `target` or its first. `choice` is of
    an ONNX file's inputs. Raises `UserError` for anything else, and for a target that the path does not have.
    """
    choice = choice or InputChoice()
    if path.is_file():
        if target not in (None, "onnxruntime"):
            raise UserError(f"{path} is one ONNX file: only onnxruntime runs it, not {target!r}; drop --target")
        return OnnxFile(path, threads, choice)
    if choice.shapes:
        raise UserError(f"{path} has one input of one size: --shape is for an ONNX file; drop it")
    if (path / MANIFEST_FILE).is_file():
        engine = Engine(path, target, threads)
        folder = path / engine.manifest.targets[engine.target].folder
        digest = engine.manifest.engine_sha256(engine.target)
        return _EngineFolder(path.resolve().name, "bundle", folder, engine.session, digest)
    if (path / ENGINE_FILE).is_file():
        own_target = EngineSpec.read(path).target
        if target not in (None, own_target):
            raise unknown_name(f"target of engine {path}:", str(target), [own_target])
        return _EngineFolder(path.resolve().name, "engine", path, open_engine(path, threads))
    raise UserError(
        f"{path} cannot be profiled: give a bundle (manifest.json), an engine folder (engine.json) or a .onnx file"
    )


class _EngineFolder:
    """A task-aware engine behind `edgemtl.runtime`."""

    def __init__(
        self, name: str, source: SourceKind, folder: Path, session: Session, engine_sha256: str | None = None
    ) -> None:
        spec = EngineSpec.read(folder)
        self.engine_sha256 = engine_sha256
        self.name, self.source = short_name(name), source
        self.target, self.runtime = spec.target, spec.runtime
        self._session = session
        self.tasks = session.tasks
        self.owners = {block: task for block, task in spec.at(0).owners.items() if task in session.tasks}
        self.graph = next((folder / name for name in spec.files.values() if name.endswith(".onnx")), None)
        self.heads: Mapping[str, str] | None = None
        self.choice = InputChoice()
        self.includes = "one run of the engine on a normalised image; no decoding, no post-processing"
        self._image = np.random.default_rng(0).standard_normal(spec.input, dtype=np.float32)

    def settle(self) -> tuple[list[str], float]:
        start = perf_counter()
        self._session.run(self._image, self.tasks)
        return [], 1000 * (perf_counter() - start)

    def call(self, tasks: Sequence[str]) -> Callable[[], object]:
        session, image, wanted = self._session, self._image, tuple(tasks)
        return lambda: session.run(image, wanted)

    def operators(self, tasks: Sequence[str], runs: int) -> list[OperatorTime]:
        return self._session.operator_times(self._image, tasks, runs)

    def close(self) -> None:
        self._session.close()
