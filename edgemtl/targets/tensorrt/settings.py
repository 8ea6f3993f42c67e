"""Settings of a build for each generation of TensorRT: which of an engine's graphs, and which flags, as data.

A board's TensorRT takes the last settings that are not newer than itself. Up to 8.x FP16 and INT8 are flags that allow
kernels, and what must stay in FP32 is named node by node; from 10 on the graph's types say all of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from edgemtl.targets.tensorrt.generations import generation_of

__all__ = ["BuildSettings", "dla_settings_for", "settings_for"]

_TRTEXEC = {
    "FP16": "--fp16",
    "GPU_FALLBACK": "--allowGPUFallback",
    "INT8": "--int8",
    "OBEY_PRECISION_CONSTRAINTS": "--precisionConstraints=obey",
    "STRONGLY_TYPED": "--stronglyTyped",
}
"""The options of `trtexec` that set flags; TensorRT 11 ignores the last."""
_BUILD_ALONE, _CALLED_BEFORE = "--skipInference", {"8.5": "--buildOnly"}
"""The option by which `trtexec` builds and measures nothing, and its name in generations that do not know that one."""
_TYPED_ONLY = "11.0"
"""The first version that has no flags of precision."""


@dataclass(frozen=True)
class BuildSettings:
    """How TensorRT from version `since` on, and `before` another, builds an engine of `graph`, a key of its files.

    `network_flags` and `builder_flags` are names of `NetworkDefinitionCreationFlag` and `BuilderFlag`; `fp32_nodes` are
    layers that are held to FP32 though the flags allow less. With `dla` layers are placed on the DLA where it takes
    them, and `magnitudes` are the largest values of tensors in eight bits.
    """

    since: str
    graph: str
    network_flags: tuple[str, ...]
    builder_flags: tuple[str, ...] = ()
    fp32_nodes: tuple[str, ...] = ()
    before: str | None = None
    dla: bool = False
    magnitudes: Mapping[str, float] = field(default_factory=dict)

    def as_json(self, files: Mapping[str, str]) -> dict[str, Any]:
        """For `engine.json`, with the command line of the same build for those who want a plan and nothing else.

        There is none with `magnitudes`, which `trtexec` does not read.
        """
        content = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        return {**content, "trtexec": [] if self.magnitudes else self._command(files[self.graph])}

    def _command(self, file: str) -> list[str]:
        flags = [_TRTEXEC[name] for name in (*self.network_flags, *self.builder_flags) if name in _TRTEXEC]
        precisions = ",".join(f"{name}:fp32" for name in self.fp32_nodes)
        held = [f"--layerPrecisions={precisions}"] if precisions else []
        unit = ["--useDLACore=0"] if self.dla else []
        alone = _CALLED_BEFORE.get(self.since, _BUILD_ALONE)
        return ["trtexec", f"--onnx={file}", "--saveEngine=engine.plan", alone, *flags, *held, *unit]


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
        settings.append(BuildSettings(since, graphs[False], ("EXPLICIT_BATCH",), tuple(flags), fp32, _TYPED_ONLY))
    return settings


def dla_settings_for(
    versions: Iterable[str], graph: str, magnitudes: Mapping[str, float], wide: Sequence[str]
) -> list[BuildSettings]:
    """The settings of each generation, oldest first, for a `graph` in floats that is placed on the DLA.

    It computes in FP16, and in INT8 where tensors have `magnitudes`; the nodes in `wide` stay in FP32, on the GPU.
    """
    flags = ["FP16", *(["INT8"] if magnitudes else []), *(["OBEY_PRECISION_CONSTRAINTS"] if wide else [])]
    return [
        BuildSettings(
            since, graph, ("EXPLICIT_BATCH",), (*flags, "GPU_FALLBACK"), tuple(wide), _TYPED_ONLY, True, magnitudes
        )
        for since in dict.fromkeys(generation_of(version).since for version in versions)
    ]
