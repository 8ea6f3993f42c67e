"""The contract of runtime backends: run any subset of an engine's tasks, and profile its operators."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Protocol

import numpy as np

from edgemtl.errors import UserError
from edgemtl.files.disk import read_json, write_json
from edgemtl.files.json import check_schema
from edgemtl.files.paths import inside
from edgemtl.tasks import FLAG_PREFIX

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "CLOSED",
    "ENGINE_FILE",
    "ENGINE_SCHEMA",
    "WARMUP_RUNS",
    "EngineSpec",
    "OperatorTime",
    "Outputs",
    "Session",
    "block_of",
    "check_image",
    "flag_name",
]

ENGINE_FILE = "engine.json"
ENGINE_SCHEMA = "edgemtl.engine/1"
WARMUP_RUNS = 3
"""Runs before a profile of operators: the first ones take memory."""
CLOSED = "this engine was closed: open it again"
Outputs = Dict[str, Dict[str, "NDArray[np.float32]"]]
"""The raw arrays of each task, by the names of its outputs: (1, C, H, W) where dense, else (1, C)."""


@dataclass(frozen=True)
class OperatorTime:
    """Mean time of one operator of an engine in one run; `block` is empty where the runtime's name has none.

    One that the runtime `fused` of operators of several blocks names those instead. `unit` is what ran it ("gpu",
    "dla"), empty where the runtime has only one.
    """

    name: str
    op: str
    block: str
    mean_ms: float
    fused: tuple[str, ...] = ()
    unit: str = ""


class Session(Protocol):
    """An open engine. Not thread-safe: one session serves one thread; open another for a second one.

    `tasks` are those the engine has. `run` pays for the wanted tasks only; its arrays belong to the session where its
    runtime lets buffers be reused, so they hold until the next `run`: copy what must live longer. Switching between
    subsets loads nothing and allocates nothing. `close` frees the engine, as dropping the last reference does; a closed
    session raises `UserError` for everything but another `close`.
    """

    tasks: tuple[str, ...]

    def run(self, image: NDArray[np.float32], tasks: str | Sequence[str]) -> Outputs:
        """Raw outputs of `tasks` (a string is one) for a normalised image (1, 3, H, W)."""
        ...

    def operator_times(self, image: NDArray[np.float32], tasks: str | Sequence[str], runs: int) -> list[OperatorTime]:
        """Mean time of each operator over `runs` warm runs, by the runtime's own profiler, in execution order."""
        ...

    def close(self) -> None:
        """Free the engine."""
        ...


@dataclass(frozen=True)
class EngineSpec:
    """Content of `engine.json`: the target that wrote the folder, the backend that opens it, its tasks and files.

    `level` is the one of several designs whose files and options these are. `needs` are what a processor must have for
    this engine to be right on it (`edgemtl.arithmetic.NEEDS`).
    """

    target: str
    runtime: str
    tasks: tuple[str, ...]
    input: tuple[int, int, int, int]
    files: Mapping[str, str]
    options: Mapping[str, Any]
    needs: tuple[str, ...] = ()
    level: int = 0

    def write(self, folder: Path) -> Path:
        """Write `engine.json` into `folder`; returns its path."""
        content = {
            "schema": ENGINE_SCHEMA,
            "target": self.target,
            "runtime": self.runtime,
            "tasks": list(self.tasks),
            "input": list(self.input),
            "files": dict(self.files),
            "needs": list(self.needs),
            "options": dict(self.options),
        }
        write_json(folder / ENGINE_FILE, content)
        return folder / ENGINE_FILE

    @classmethod
    def read(cls, folder: Path) -> EngineSpec:
        """Read `engine.json`; raises `UserError` for a foreign schema, missing keys or files outside the folder."""
        path = folder / ENGINE_FILE
        if not path.is_file():
            raise UserError(f"{folder} holds no {ENGINE_FILE}: give an engine folder that edgemtl export wrote")
        content = read_json(inside(folder, ENGINE_FILE, "engine"), "engine")
        check_schema(content, f"engine {path}", ENGINE_SCHEMA, "export the bundle again")
        try:
            return cls._checked(content, folder)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path} is damaged ({type(error).__name__}: {error}): export the bundle again") from error

    @classmethod
    def _checked(cls, content: Mapping[str, Any], folder: Path) -> EngineSpec:
        files = {str(key): str(name) for key, name in content["files"].items()}
        for name in files.values():
            inside(folder, name, "engine")
        batch, channels, height, width = (int(size) for size in content["input"])
        tasks = tuple(str(task) for task in content["tasks"])
        size = (batch, channels, height, width)
        needs = tuple(str(need) for need in content["needs"])
        return cls(str(content["target"]), str(content["runtime"]), tasks, size, files, dict(content["options"]), needs)

    def at(self, level: int) -> EngineSpec:
        """The engine of one of several levels, with its own files and options; `UserError` where there is none.

        The file `model-3` replaces `model`, `options["levels"][3]` override the options, and so on.
        """
        if "levels" not in self.options and level == 0:
            return self
        suffix = f"-{level}"
        own = {key[: -len(suffix)]: name for key, name in self.files.items() if key.endswith(suffix)}
        if not own:
            raise UserError(f"{ENGINE_FILE} names no file for level {level}: export the bundle again")
        try:
            options = {**self.options, **self.options["levels"][level]}
        except (IndexError, KeyError, TypeError) as error:
            raise UserError(f"{ENGINE_FILE} does not describe level {level}: export the bundle again") from error
        return replace(self, files={**self.files, **own}, options=options, level=level)

    @property
    def owners(self) -> dict[str, str]:
        """The task of each block of the net that belongs to one alone."""
        blocks = self.options.get("blocks")
        owners = blocks.items() if isinstance(blocks, dict) else ()
        return {str(block): task for block, task in owners if isinstance(task, str)}

    @property
    def flags(self) -> dict[str, str]:
        """Each task's boolean input, where the engine's graph has one: what a plain runtime must feed."""
        return dict(self.options.get("flags", {}))

    @property
    def runtime_options(self) -> dict[str, str]:
        """The options without which a plain runtime may give other results than edgemtl's session."""
        return dict(self.options.get("runtime_options", {}))

    @property
    def outputs(self) -> dict[str, dict[str, str]]:
        """The tensor of each output of each task; raises `UserError` where the options do not name one or more each."""
        named = self.options.get("outputs")
        if not isinstance(named, dict) or not all(_are_tensors(named.get(task)) for task in self.tasks):
            raise UserError(f"{ENGINE_FILE} names no output tensor for each of {', '.join(self.tasks)}: export again")
        return {task: dict(named[task]) for task in self.tasks}

    def file(self, folder: Path, key: str) -> Path:
        """Path of one of the engine's files; raises `UserError` where it is missing."""
        name = self.files.get(key)
        if name is None or not (folder / name).is_file():
            raise UserError(f"engine {folder} lacks its file {name or key}: copy the whole folder, or export again")
        return folder / name


def _are_tensors(own: object) -> bool:
    """Whether this names one output of a task or more, and the tensor of each."""
    return isinstance(own, dict) and bool(own) and all(isinstance(word, str) for pair in own.items() for word in pair)


def check_image(image: NDArray[np.float32], size: tuple[int, int, int, int]) -> NDArray[np.float32]:
    """The image as an array that an engine can read, copied only where it is not contiguous or not writable.

    Raises `UserError` for another shape or type.
    """
    if image.shape != size or image.dtype != np.float32:
        raise UserError(f"image of shape {image.shape} and type {image.dtype} given, the engine reads {size} float32")
    return np.require(image, requirements=["C", "W"])


def flag_name(task: str) -> str:
    """The boolean input (1,) that says whether a task is wanted, where an engine's graph has such inputs."""
    return f"{FLAG_PREFIX}{task}"


def block_of(name: str) -> str:
    """Block of the net that an operator's name points to (`blocks.BLOCK.LAYER`), empty where it names none."""
    parts = name.split(".")
    return parts[1] if len(parts) > 2 and parts[0] == "blocks" else ""
