"""How a latency, and an output, of a target's engine on a device comes about: here, there, simulated, or not at all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from edgemtl.arithmetic import Arithmetic, lacking, own_arithmetic
from edgemtl.devices import HOST, Device, own_precisions
from edgemtl.profiling.energy import draw_energy
from edgemtl.profiling.samples import Samples
from edgemtl.profiling.schema import Opening
from edgemtl.profiling.timing import Call, compare
from edgemtl.profiling.watch import Disturbance
from edgemtl.progress import Report, silent
from edgemtl.results import FigureKind
from edgemtl.runtime import Session, open_engine

__all__ = [
    "LocalMeasurer",
    "Measurer",
    "MeteredMeasurer",
    "NoMeasurer",
    "Observation",
    "ObservedSession",
    "TimedCall",
    "Untimed",
]

Modes = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Untimed:
    """Why there are no latencies, as a clause, and what to do instead."""

    reason: str
    remedy: str = "give FLOPs or MB"


@dataclass(frozen=True)
class TimedCall:
    """One call of a session that a measurer opened: a normalised image (1, 3, H, W) and the tasks that are wanted."""

    session: Session
    image: NDArray[np.float32]
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Observation:
    """Readings of another machine: its `environment`, and what disturbed it while calls were timed."""

    environment: Mapping[str, Any]
    disturbance: Disturbance


@runtime_checkable
class ObservedSession(Session, Protocol):
    """A session on another machine that tells what was seen there: when it was opened, and when it was timed last."""

    opening: Opening | None
    observation: Observation | None


class Measurer(Protocol):
    """Opens engines of one target and times them, on one device or in place of it. Stateless: `open` gives the state.

    `kind` says where its latencies come from, and stands with each of them in results. `arithmetic` is what computes
    the outputs of its sessions. Both methods that open and time raise `UserError`, one line, where the device cannot be
    reached.
    """

    @property
    def kind(self) -> FigureKind:
        """Where latencies come from."""
        ...

    @property
    def arithmetic(self) -> Arithmetic:
        """Arithmetic that computes the outputs."""
        ...

    @property
    def untimed(self) -> Untimed | None:
        """Why there are no latencies of the target's engines on the device; None where there are."""
        ...

    def runs(self, precision: Mapping[str, str], needs: Sequence[str]) -> bool:
        """Whether sessions give the outputs that an engine of this precision and with these needs has on its device."""
        ...

    def open(self, folder: Path, threads: int = 0, modes: Modes | None = None, level: int = 0) -> Session:
        """Open the engine in `folder` (the one that holds `engine.json`), as `edgemtl.runtime.open_engine` does."""
        ...

    def compare(
        self,
        calls: Mapping[str, TimedCall],
        rounds: int = 10,
        *,
        burst: int = 10,
        settle: int = 2,
        warmup: int = 20,
        report: Report = silent,
    ) -> dict[str, Samples]:
        """Latencies in ms of calls of open sessions, in turns, as `edgemtl.profiling.compare` draws them.

        What is no measurement may give one sample a call. Moving images and outputs is not part of a latency.
        """
        ...


@runtime_checkable
class MeteredMeasurer(Protocol):
    """A measurer that meters energy too, where its device tells it."""

    def draw_energy(self, calls: Mapping[str, TimedCall], *, report: Report = silent) -> Mapping[str, Any]:
        """Loops of calls and of idling in turns, as `edgemtl.profiling.energy.draw_energy` gives them."""
        ...


@dataclass(frozen=True)
class LocalMeasurer:
    """Engines that run on this machine: measured where it is the device, and computed wherever that is right here."""

    device: Device
    target: str
    kind: FigureKind = "measured"

    @property
    def arithmetic(self) -> Arithmetic:
        """This machine's."""
        return own_arithmetic()

    @property
    def untimed(self) -> Untimed | None:
        """The device may be another machine, or the host of a run that was made on one."""
        device = self.device
        if device.is_here:
            return None
        if device.is_host:
            reason = f"the run was made on another machine ({device.arithmetic})"
            return Untimed(reason, f"for this one add --device {HOST}, or {Untimed.remedy}")
        return Untimed(f"device {device.name} ({device.arithmetic}) is not this machine")

    def runs(self, precision: Mapping[str, str], needs: Sequence[str]) -> bool:
        """Without instructions for BF16 a runtime computes in FP32 instead."""
        return bool(own_precisions([precision.get("engine", "fp32")])) and not lacking(needs, own_arithmetic())

    def open(self, folder: Path, threads: int = 0, modes: Modes | None = None, level: int = 0) -> Session:
        """Open the engine in this process."""
        return open_engine(folder, threads, modes, level)

    def compare(
        self,
        calls: Mapping[str, TimedCall],
        rounds: int = 10,
        *,
        burst: int = 10,
        settle: int = 2,
        warmup: int = 20,
        report: Report = silent,
    ) -> dict[str, Samples]:
        """Time the calls in this process."""
        return compare(_own_calls(calls), rounds, burst=burst, settle=settle, warmup=warmup, report=report)

    def draw_energy(self, calls: Mapping[str, TimedCall], *, report: Report = silent) -> Mapping[str, Any]:
        """Meter the calls in this process."""
        return draw_energy(_own_calls(calls), report=report)


def _own_calls(calls: Mapping[str, TimedCall]) -> dict[str, Call]:
    return {name: partial(call.session.run, call.image, call.tasks) for name, call in calls.items()}


class NoMeasurer(LocalMeasurer):
    """Engines that are only written here: opening one is left to its backend, which says what it needs."""

    @property
    def untimed(self) -> Untimed:
        """On this machine as on others."""
        return super().untimed or Untimed(f"target {self.target} does not run on this host")

    def runs(self, precision: Mapping[str, str], needs: Sequence[str]) -> bool:
        """Never."""
        return False
