"""Traits of a target as data: the facts that spaces, plans and searches need."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgemtl.arithmetic import Arithmetic
from edgemtl.devices import Device
from edgemtl.errors import UserError
from edgemtl.units import Budget, Quantity

__all__ = ["FOUR_BIT_GROUP", "INTEGER_BITS", "USUAL_STORAGE", "Storage", "TargetTraits"]

INTEGER_BITS = {"int12": 12, "int10": 10, "int8": 8}
"""Bits of a block's weights and activations by its precision, where they are whole numbers of steps."""
FOUR_BIT_GROUP = 32
"""Weights along the input of a linear layer that have a scale of their own in "int4"."""


@dataclass(frozen=True)
class Storage:
    """Bytes of parameters as a target stores them: of a weight and a bias in float, and what comes to packed integers.

    Their layers have `channel_bytes` for each output channel beside its weights, by default a float scale, an eight-bit
    zero point and a float bias; one without a bias has `bare_channel_bytes`, by default the scale and the zero point.
    `layer_bytes` are the scales and zero points of two rounded tensors: of what a convolution reads or writes, and of a
    sum or an enlargement after it.
    """

    weight_bytes: int = 4
    bias_bytes: int = 4
    channel_bytes: int = 9
    bare_channel_bytes: int = 5
    layer_bytes: int = 10

    def of_layer(self, precision: str, weights: int, outputs: int, has_bias: bool) -> int:
        """Bytes of a layer in a block's precision; integers of less than whole bytes are packed."""
        if precision not in INTEGER_BITS:
            return self.weight_bytes * weights + (self.bias_bytes * outputs if has_bias else 0)
        packed = -(-weights * INTEGER_BITS[precision] // 8)
        return packed + (self.channel_bytes if has_bias else self.bare_channel_bytes) * outputs + self.layer_bytes

    def of_four_bits(self, inputs: int, outputs: int, has_bias: bool) -> int:
        """Bytes of a linear layer with weights of four bits: whole groups of them, each with a float scale."""
        groups = -(-inputs // FOUR_BIT_GROUP)
        return outputs * groups * (FOUR_BIT_GROUP // 2 + 4) + (self.bias_bytes * outputs if has_bias else 0)


USUAL_STORAGE = Storage()
"""That of runtimes that read ONNX, but for what their quantizer's biases take."""


@dataclass(frozen=True)
class TargetTraits:
    """Capabilities of a runtime; the search offers nothing else.

    `block_precisions` may be chosen block by block ("float", "int8"); `weight_precisions` ("int4") are of the weights
    of linear layers alone, block by block, in nets of one's own; `engine_precisions` hold for the rest of the whole
    engine ("fp32", "bf16"). Widths are multiples of `channel_multiple`. `runtime` names the backend of
    `edgemtl.runtime` that opens its engines, `extra` the optional dependency that installs it (empty: none is needed).
    `measurer` names how latencies come about on a device that names no measurer itself (`edgemtl.profiling.Measurer`:
    "local" where engines run on this host, "none" where they do not); `quantities` are those that the target counts
    itself, so that budgets may limit them, and `limits` the budgets that the device sets by itself.
    `storage` says what its files take (of an output channel in INT8 `QuantScheme.channel_bytes`). Where engines do not
    run on the device's processor, `arithmetic` is what they multiply with, and `hardware` says in words what an engine
    is for ("NVIDIA GPUs of the ampere generation"). With `needs_ranges` every engine needs the ranges of activations,
    not INT8 alone.
    `lacking` are kinds of block, and activations, that the exporter refuses.
    """

    name: str
    title: str
    block_precisions: tuple[str, ...]
    engine_precisions: tuple[str, ...]
    channel_multiple: int
    runtime: str
    extra: str
    measurer: str = "local"
    quantities: tuple[Quantity, ...] = ()
    limits: tuple[Budget, ...] = ()
    storage: Storage = USUAL_STORAGE
    arithmetic: Arithmetic | None = None
    hardware: str = ""
    needs_ranges: bool = False
    lacking: tuple[str, ...] = ()
    weight_precisions: tuple[str, ...] = ()

    def on(self, device: Device) -> TargetTraits:
        """These traits with the precisions that `device` says its runtime honours; all, where it knows no such runtime.

        Raises `UserError` where the rest of an engine could have none.
        """
        listed = next((runtime.precisions for runtime in device.runtimes if runtime.name == self.runtime), None)
        if listed is None:
            return self
        engine = tuple(precision for precision in self.engine_precisions if precision in listed)
        if not engine:
            raise UserError(
                f"target {self.name} needs {' or '.join(self.engine_precisions)}, runtime {self.runtime} of device "
                f"{device.name} has {', '.join(listed)}: choose another target or device"
            )
        block = tuple(precision for precision in self.block_precisions if precision in ("float", *listed))
        return replace(self, block_precisions=block, engine_precisions=engine)
