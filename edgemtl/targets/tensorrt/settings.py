"""Settings of a build for each generation of TensorRT: which of an engine's graphs, and which flags, as data.

A board's TensorRT takes the last settings that are not newer than itself. Up to 8.x FP16 and INT8 are flags that allow
kernels, and what must stay in FP32 is named node by node; from 10 on the graph's types say all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edgemtl.targets.tensorrt.generations import generation_of

__all__ = ["BuildSettings", "settings_for"]

_TRTEXEC = {
    "FP16": "--fp16",
    "INT8": "--int8",
    "OBEY_PRECISION_CONSTRAINTS": "--precisionConstraints=obey",
    "STRONGLY_TYPED": "--stronglyTyped",
}
"""The options of `trtexec` that set flags; TensorRT 11 ignores the last."""


@dataclass(frozen=True)
class BuildSettings:
    """How TensorRT from version `since` on builds an engine of `graph`, a key of the engine's files.

    `network_flags` and `builder_flags` are names of `NetworkDefinitionCreationFlag` and `BuilderFlag`; `fp32_nodes` are
    layers that are held to FP32 though the flags allow less.
    """

    since: str
    graph: str
    network_flags: tuple[str, ...]
    builder_flags: tuple[str, ...] = ()
    fp32_nodes: tuple[str, ...] = ()

    def as_json(self, files: Mapping[str, str]) -> dict[str, Any]:
        """For `engine.json`, with the command line of the same build for those who want a plan and nothing else."""
        content = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {**content, "trtexec": self._command(files[self.graph])}

    def _command(self, file: str) -> list[str]:
        flags = [_TRTEXEC[name] for name in (*self.network_flags, *self.builder_flags) if name in _TRTEXEC]
        precisions = ",".join(f"{name}:fp32" for name in self.fp32_nodes)
        held = [f"--layerPrecisions={precisions}"] if precisions else []
        return ["trtexec", f"--onnx={file}", "--saveEngine=engine.plan", "--skipInference", *flags, *held]


def settings_for(
    versions: Iterable[str], graphs: Mapping[bool, str], precision: Mapping[str, str], wide: Sequence[str]
) -> list[BuildSettings]:
    """The settings of each generation that `versions` belong to, oldest first.

    `graphs` are the files for networks that are strongly typed (True) and that are not; `wide` the nodes that FP16
    cannot hold.
    """
    generations = {generation_of(version).since: generation_of(version) for version in versions}
    settings = []
    for since, generation in generations.items():
        if generation.strongly_typed:
            settings.append(BuildSettings(since, graphs[True], ("STRONGLY_TYPED",)))
            continue
        half, eight = precision.get("engine") == "fp16", "int8" in precision.values()
        flags = [name for name, wanted in (("FP16", half), ("INT8", eight)) if wanted]
        fp32 = tuple(sorted(wide)) if half else ()
        flags += ["OBEY_PRECISION_CONSTRAINTS"] if fp32 else []
        settings.append(BuildSettings(since, graphs[False], ("EXPLICIT_BATCH",), tuple(flags), fp32))
    return settings
