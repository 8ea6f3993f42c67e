"""The engines of several levels over one file of weights, with one `engine.json`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx
from safetensors.numpy import save

from edgemtl.export.shared_weights import (
    Carrier,
    StoredWeights,
    half_carrier,
    ir_carrier,
    onnx_carrier,
    share_weights,
)
from edgemtl.files.disk import write_atomic
from edgemtl.files.onnx import read_onnx
from edgemtl.runtime import EngineSpec
from edgemtl.targets import ExportTarget

__all__ = ["SHARING", "WEIGHTS_FILE", "LevelEngine", "Written", "built_engine", "write_engines"]

WEIGHTS_FILE = "weights.safetensors"
Exact = Callable[[], onnx.ModelProto]
"""The ONNX model of a level in FP32, whose weights those of its engine are recognised by."""


@dataclass(frozen=True)
class LevelEngine:
    """One level's engine as its target builds it: content of `engine.json`, files with weights, and others, by key."""

    spec: EngineSpec
    carriers: Mapping[str, Carrier]
    others: Mapping[str, bytes]

    @property
    def size_bytes(self) -> int:
        """The bytes of all its files."""
        return sum(len(carrier.content) for carrier in self.carriers.values()) + sum(map(len, self.others.values()))


@dataclass(frozen=True)
class Written:
    """The files of all levels' engine, and the bytes that the models take with and without sharing."""

    files: tuple[str, ...]
    shared_bytes: int
    alone_bytes: int

    def summary(self, levels: int) -> str:
        """How much less the levels take together than one by one, in words."""
        return (
            f"models and weights: {self.shared_bytes / 1e6:.2f} MB for {levels} levels, "
            f"{self.shared_bytes / self.alone_bytes:.0%} of the {self.alone_bytes / 1e6:.2f} MB that they take one by "
            "one"
        )


def _read_onnxruntime(spec: EngineSpec, folder: Path, exact: Exact) -> LevelEngine:
    return LevelEngine(spec, {"model": onnx_carrier(_read(spec, folder, "model"))}, {})


def _read_openvino(spec: EngineSpec, folder: Path, exact: Exact) -> LevelEngine:
    model, weights = (spec.file(folder, key).read_bytes() for key in ("model", "weights"))
    return LevelEngine(spec, {"weights": ir_carrier(model, weights, exact())}, {"model": model})


def _read_tensorrt(spec: EngineSpec, folder: Path, exact: Exact) -> LevelEngine:
    model = exact()
    return LevelEngine(spec, {key: half_carrier(_read(spec, folder, key), model) for key in spec.files}, {})


def _read(spec: EngineSpec, folder: Path, key: str) -> onnx.ModelProto:
    return read_onnx(spec.file(folder, key), external_data=True)


SHARING = {"onnxruntime": _read_onnxruntime, "openvino": _read_openvino, "tensorrt": _read_tensorrt}
"""The targets whose engines can be put together from weights that several share."""


def built_engine(target: ExportTarget, build: Callable[[Path], object], exact: Exact) -> LevelEngine:
    """The engine that `build` writes into a folder for a target of `SHARING`, read into memory."""
    with tempfile.TemporaryDirectory(prefix="edgemtl-") as alone:
        folder = Path(alone)
        build(folder)
        return SHARING[target.traits.name](EngineSpec.read(folder), folder, exact)


def write_engines(engines: Sequence[LevelEngine], stored: StoredWeights, folder: Path) -> Written:
    """Write levels' engines over one file of the weights `stored`."""
    shared, tensors = share_weights([engine.carriers for engine in engines], stored)
    keys, contents = dict[str, str](), {WEIGHTS_FILE: save(tensors)}
    options = []
    for number, (engine, level) in enumerate(zip(engines, shared, strict=True)):
        for key, content in {**engine.others, **{key: part.content for key, part in level.items()}}.items():
            suffix = ".bin" if key in level else Path(engine.spec.files[key]).suffix
            keys[f"{key}-{number}"] = name = f"level-{number}-{key}{suffix}"
            contents[name] = content
        parts = {key: [part.as_json() for part in carrier.parts] for key, carrier in level.items()}
        options.append({**engine.spec.options, "shared": parts})
    for name, content in contents.items():
        write_atomic(folder / name, content)
    spec = replace(engines[0].spec, files={**keys, "shared": WEIGHTS_FILE}, options={"levels": options})
    files = (*contents, spec.write(folder).name)
    return Written(files, sum(map(len, contents.values())), sum(engine.size_bytes for engine in engines))
