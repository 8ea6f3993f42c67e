"""The precision of a net of one's own: of the engine, and of each block."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from edgemtl.bundle import BundleInput
from edgemtl.errors import UserError
from edgemtl.models.quantization import Ranges, check_precision
from edgemtl.own.four_bits import four_bit_blocks, in_four_bits
from edgemtl.own.rounding import ready_for_rounding, rounded_blocks, rounded_model, share_constants
from edgemtl.targets import ExportTarget, TaskModel
from edgemtl.tasks import Task

__all__ = ["FLOAT", "FLOAT_ENGINE", "INT4", "INT8", "OwnPrecision", "in_precision", "named_precision", "net_digest"]

FLOAT, INT8, INT4 = "float", "int8", "int4"
FLOAT_ENGINE = "fp32"
_ROUNDED_LAYERS = {
    INT8: "convolution or linear layer that INT8 could round",
    INT4: "linear layer of 32 inputs or more, whose weights INT4 could round",
}


@dataclass(frozen=True)
class OwnPrecision:
    """`values` maps "engine" and blocks to precisions; `ranges` are those of tensors (None: no block is INT8)."""

    values: Mapping[str, str]
    ranges: Ranges | None = None

    @property
    def digest(self) -> bytes:
        """Fingerprint; nothing where all is FP32."""
        if not self.is_reduced:
            return b""
        limits = sorted(self.ranges.limits.items()) if self.ranges else ()
        return repr((sorted(self.values.items()), limits)).encode()

    @property
    def is_reduced(self) -> bool:
        """Whether anything is less than FP32."""
        return any(value not in (FLOAT, FLOAT_ENGINE) for value in self.values.values())


def net_digest(model: TaskModel, about: BundleInput, tasks: Sequence[Task]) -> str:
    """Fingerprint of a net in float, the image that it reads, and its tasks."""
    content = model.model.SerializeToString(deterministic=True) + about.model_dump_json().encode()
    return hashlib.sha256(content + repr(tuple(tasks)).encode()).hexdigest()


def named_precision(name: str, model: TaskModel, targets: Sequence[ExportTarget]) -> Mapping[str, str]:
    """One precision everywhere: `float`, `int8` or `int4` of every block with a layer for it, or an engine's (`bf16`).

    Raises `UserError` for another name, and where a target does not honour it.
    """
    if name == FLOAT:
        return {"engine": FLOAT_ENGINE}
    if name in (INT8, INT4):
        blocks = (rounded_blocks if name == INT8 else four_bit_blocks)(ready_for_rounding(model))
        if not blocks:
            raise UserError(f"--precision {name}: the net has no {_ROUNDED_LAYERS[name]}")
        return {"engine": FLOAT_ENGINE, **dict.fromkeys(blocks, name)}
    engines = dict.fromkeys(each for target in targets for each in target.traits.engine_precisions)
    if name not in engines:
        weights = dict.fromkeys(each for target in targets for each in target.traits.weight_precisions)
        offered = ", ".join([FLOAT, INT8, *weights, *engines])
        raise UserError(f"--precision {name} is none of {offered}, nor the folder of a search")
    return {"engine": name}


def in_precision(model: TaskModel, precision: OwnPrecision, target: ExportTarget) -> TaskModel:
    """The net as a target's engine is written from: unchanged where no block is rounded, else by the target's scheme.

    Raises `UserError` for a precision that the target does not honour.
    """
    traits, kinds = target.traits, set(precision.values.values())
    offered = (*traits.block_precisions, *traits.weight_precisions)
    check_precision(precision.values, model.block_tasks, offered, traits.engine_precisions, traits.name)
    if kinds.isdisjoint((INT8, INT4)):
        return model
    written = ready_for_rounding(model)
    if INT8 in kinds:
        assert precision.ranges is not None
        written = rounded_model(written, precision.values, precision.ranges, target.scheme)
    four = [block for block, kind in precision.values.items() if kind == INT4]
    if four:
        written = replace(written, model=in_four_bits(written.model, four))
    share_constants(written.model.graph)
    return written
