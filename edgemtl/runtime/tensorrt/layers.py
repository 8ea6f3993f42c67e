"""Layers of a built engine, as TensorRT's inspector tells them: operators inside each, and the unit that runs it.

TensorRT fuses operators, moves them between GPU and DLA, and adds layers of its own. Its inspector names, for an engine
that was built with detailed verbosity, each layer's type and the nodes of the graph in it; where it names none, those
in the layer's name count.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from edgemtl.runtime.session import OperatorTime, block_of

__all__ = ["Layer", "inspect_layers", "named_layer", "time_of"]

_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_PARTS = re.compile(r"\s*\+\s*|\s*,\s*|\.\.\.|[{}\[\]]")
_DLA = "DLA"


@dataclass(frozen=True)
class Layer:
    """One layer: its type in TensorRT's words, the graph's nodes that it computes, and what runs it: "gpu" or "dla".

    Type and unit are empty where the inspector does not tell.
    """

    kind: str
    nodes: tuple[str, ...]
    unit: str = ""

    @property
    def blocks(self) -> tuple[str, ...]:
        """The blocks of its nodes, each once."""
        return tuple(dict.fromkeys(filter(None, map(block_of, self.nodes))))


def named_layer(name: str) -> Layer:
    """A layer of which only its name is known: `a + b`, `{ForeignNode[a...b]}`."""
    return Layer("", tuple(part for part in _PARTS.split(name) if block_of(part)))


def inspect_layers(trt: Any, engine: Any) -> dict[str, Layer]:
    """The layers of an engine by name; empty where its inspector does not say what they are."""
    inspector = engine.create_engine_inspector()
    try:
        content = json.loads(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    except ValueError:
        return {}
    layers = content.get("Layers", []) if isinstance(content, dict) else []
    return {str(each["Name"]): _layer(each) for each in layers if isinstance(each, dict) and "Name" in each}


def _layer(content: dict[str, Any]) -> Layer:
    kind = str(content.get("LayerType", ""))
    nodes = tuple(_NODE.findall(str(content.get("Metadata", "")))) or named_layer(str(content["Name"])).nodes
    unit = "dla" if kind.upper().startswith(_DLA) else "gpu"
    return Layer(kind, nodes, unit if kind else "")


def time_of(name: str, layer: Layer, ms: float, for_dla: Collection[str]) -> OperatorTime:
    """The time of a layer; `for_dla` are blocks that were placed on the DLA, whose layers on the GPU fell back."""
    blocks = layer.blocks
    kind = layer.kind or "layer"
    fell_back = layer.unit == "gpu" and any(block in for_dla for block in blocks)
    return OperatorTime(
        name,
        f"{kind}, fused" if len(layer.nodes) > 1 else kind,
        blocks[0] if len(blocks) == 1 else "",
        ms,
        fused=blocks if len(blocks) > 1 else (),
        unit="gpu (fallback)" if fell_back else layer.unit,
    )
