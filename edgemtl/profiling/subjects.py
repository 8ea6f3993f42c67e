"""Models that can be profiled: a bundle, an engine folder, or any ONNX file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, Protocol

import numpy as np

from edgemtl.bundle import MANIFEST_FILE, Manifest
from edgemtl.devices import HOST, Device, load_device
from edgemtl.errors import UserError, unknown_name
from edgemtl.profiling.inputs import InputChoice
from edgemtl.profiling.measurer import MeteredMeasurer, Observation, ObservedSession, TimedCall
from edgemtl.profiling.measurers import find_measurer
from edgemtl.profiling.names import short_name
from edgemtl.profiling.onnx_file import open_file
from edgemtl.profiling.samples import Samples
from edgemtl.profiling.schema import Opening
from edgemtl.progress import Report
from edgemtl.results import FigureKind
from edgemtl.runtime import ENGINE_FILE, EngineSpec, OperatorTime, read_bundle

__all__ = ["ProfiledModel", "open_subject"]

SourceKind = Literal["bundle", "engine", "onnx"]


class ProfiledModel(Protocol):
    """Something open that runs any subset of its `tasks`.

    `includes` says what one timed call contains, `kind` where latencies come from. `graph` is an ONNX file of it, where
    there is one to count, and `heads` the output tensor of each task there, where the file does not tell. `choice` is
    what its inputs are, and `engine_sha256` what tells an engine of a bundle from any other
    (`Manifest.engine_sha256`).
    """

    name: str
    source: SourceKind
    target: str
    runtime: str
    tasks: tuple[str, ...]
    includes: str
    kind: FigureKind
    graph: Path | None
    heads: Mapping[str, str] | None
    choice: InputChoice
    engine_sha256: str | None

    @property
    def owners(self) -> Mapping[str, str]:
        """The task of each block that belongs to one alone."""
        ...

    @property
    def opening(self) -> Opening | None:
        """Cost of opening it on another machine, where that told."""
        ...

    @property
    def observation(self) -> Observation | None:
        """Readings of another machine where it was timed last, where that told."""
        ...

    def settle(self) -> tuple[list[str], float]:
        """Run once, on inputs that `choice` is afterwards: what was assumed of them, in lines, and that run's ms.

        Raises `UserError` where it does not run.
        """
        ...

    def compare(
        self, modes: Mapping[str, Sequence[str]], rounds: int, *, burst: int, report: Report
    ) -> dict[str, Samples]:
        """Latencies of each set of tasks on a fixed input, in turns (`edgemtl.profiling.compare`)."""
        ...

    def operators(self, tasks: Sequence[str], runs: int) -> list[OperatorTime]:
        """Mean time of each operator, by the runtime's own profiler."""
        ...

    def draw_energy(self, modes: Mapping[str, Sequence[str]], *, report: Report) -> Mapping[str, Any]:
        """Energy of each set of tasks, as `edgemtl.profiling.energy.draw_energy` gives it."""
        ...

    def close(self) -> None:
        """Free what was opened."""
        ...


def open_subject(
    path: Path,
    target: str | None = None,
    threads: int = 0,
    choice: InputChoice | None = None,
    device: Device | None = None,
) -> ProfiledModel:
    """Open a bundle (a folder with `manifest.json`), an engine folder (`engine.json`) or an ONNX file.

    A bundle is opened as `edgemtl.runtime.Engine` does, with the engine of `target` or its first; an ONNX file by ONNX
    Runtime, or by the runtime of `target`. `choice` is of an ONNX file's inputs. Engines are opened by what measures
    `device` (None: this machine). Raises `UserError` for anything else, and for a target that the path does not
    have.
    """
    choice, device = choice or InputChoice(), device or load_device(HOST)
    if path.is_file():
        if device.measurer is not None:
            raise UserError(f"{path} is one ONNX file, which runs on this machine only: export an engine for --device")
        return open_file(path, target, threads, choice)
    if choice.shapes:
        raise UserError(f"{path} has one input of one size: --shape is for an ONNX file; drop it")
    if (path / MANIFEST_FILE).is_file():
        manifest, target = read_bundle(path, target)
        return _EngineFolder(path, "bundle", path / manifest.targets[target].folder, threads, device, manifest)
    if (path / ENGINE_FILE).is_file():
        own_target = EngineSpec.read(path).target
        if target not in (None, own_target):
            raise unknown_name(f"target of engine {path}:", str(target), [own_target])
        return _EngineFolder(path, "engine", path, threads, device)
    raise UserError(
        f"{path} cannot be profiled: give a bundle (manifest.json), an engine folder (engine.json) or a .onnx file"
    )


class _EngineFolder:
    """A task-aware engine, opened and timed by what measures its device."""

    def __init__(
        self,
        path: Path,
        source: SourceKind,
        folder: Path,
        threads: int,
        device: Device,
        manifest: Manifest | None = None,
    ) -> None:
        spec = EngineSpec.read(folder)
        self.engine_sha256 = None if manifest is None else manifest.engine_sha256(spec.target)
        self.name, self.source = short_name(path.resolve().name), source
        self.target, self.runtime = spec.target, spec.runtime
        self._measurer = find_measurer(device, spec.target)
        self.kind = self._measurer.kind
        self._session = session = self._measurer.open(folder, threads)
        self.tasks = session.tasks
        self.owners = {block: task for block, task in spec.at(0).owners.items() if task in session.tasks}
        self.graph = next((folder / name for name in spec.files.values() if name.endswith(".onnx")), None)
        self.heads: Mapping[str, str] | None = None
        self.choice = InputChoice()
        self.includes = "one run of the engine on a normalised image; no decoding, no post-processing"
        self._observed = session if isinstance(session, ObservedSession) else None
        self._image = np.random.default_rng(0).standard_normal(spec.input, dtype=np.float32)

    @property
    def opening(self) -> Opening | None:
        return self._observed.opening if self._observed else None

    @property
    def observation(self) -> Observation | None:
        return self._observed.observation if self._observed else None

    def settle(self) -> tuple[list[str], float]:
        start = perf_counter()
        self._session.run(self._image, self.tasks)
        return [], 1000 * (perf_counter() - start)

    def compare(
        self, modes: Mapping[str, Sequence[str]], rounds: int, *, burst: int, report: Report
    ) -> dict[str, Samples]:
        return self._measurer.compare(self._calls(modes), rounds, burst=burst, report=report)

    def draw_energy(self, modes: Mapping[str, Sequence[str]], *, report: Report) -> Mapping[str, Any]:
        if not isinstance(self._measurer, MeteredMeasurer):
            return {"reason": "what measures this device meters no energy"}
        return self._measurer.draw_energy(self._calls(modes), report=report)

    def _calls(self, modes: Mapping[str, Sequence[str]]) -> dict[str, TimedCall]:
        return {name: TimedCall(self._session, self._image, tuple(tasks)) for name, tasks in modes.items()}

    def operators(self, tasks: Sequence[str], runs: int) -> list[OperatorTime]:
        return self._session.operator_times(self._image, tasks, runs)

    def close(self) -> None:
        self._session.close()
