"""Traits of a target as data: the facts that spaces, plans and searches need."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edgemtl.arithmetic import Arithmetic
from edgemtl.devices import Device
from edgemtl.errors import UserError
from edgemtl.units import Budget, Quantity

__all__ = ["INT8_CHANNEL_BYTES", "TargetTraits"]

INT8_CHANNEL_BYTES = 9
"""A float scale, an eight-bit zero point and a float bias: what an output channel of INT8 weights costs at least."""


@dataclass(frozen=True)
class TargetTraits:
    """Capabilities of a runtime; the search offers nothing else.

    `block_precisions` may be chosen block by block ("float", "int8"); `engine_precisions` hold for the rest of the
    whole engine ("fp32", "bf16"). Widths are multiples of `channel_multiple`. `runtime` names the backend of
    `edgemtl.runtime` that opens its engines, `extra` the optional dependency that installs it (empty: none is needed).
    `measurer` names how latencies come about on a device that names no measurer itself (`edgemtl.profiling.Measurer`:
    "local" where engines run on this host, "none" where they do not); `quantities` are those that the target counts
    itself, so that budgets may limit them, and `limits` the budgets that the device sets by itself.
    `int8_channel_bytes` are stored for each output channel beside its INT8 weights (`QuantScheme.channel_bytes` counts
    them). Where engines do not run on the device's processor, `arithmetic` is what they multiply with, and `hardware`
    says in words what an engine is for ("NVIDIA GPUs of the ampere generation"). With `needs_ranges` every engine needs
    the ranges of activations, not INT8 alone.
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
    int8_channel_bytes: int = INT8_CHANNEL_BYTES
    arithmetic: Arithmetic | None = None
    hardware: str = ""
    needs_ranges: bool = False
    lacking: tuple[str, ...] = ()

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
