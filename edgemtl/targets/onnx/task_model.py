"""An ONNX model whose outputs belong to tasks: what exporters that write from ONNX are given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

__all__ = ["TaskModel"]


@dataclass(frozen=True)
class TaskModel:
    """One image in, tasks out.

    `model` has the input `image`, float32 (1, 3, H, W) with (H, W) being `input_size`, constants as initializers, and
    type and shape of every tensor; `outputs` are the tensors of each output of each task. Operators are called
    `blocks.BLOCK.OPERATOR`; `block_tasks` says which task alone runs a block (None: several, or all).
    """

    model: onnx.ModelProto
    outputs: Mapping[str, Mapping[str, str]]
    input_size: tuple[int, int]
    block_tasks: Mapping[str, str | None]
