"""The measurer `ssh`: engines are copied to a board, opened and timed there by the agent."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.arithmetic import ANY, NEEDS, Arithmetic, lacking
from edgemtl.devices import Device
from edgemtl.errors import EngineWarning, UserError, printable
from edgemtl.files.seals import sha256
from edgemtl.profiling.arrays import join_arrays, split_arrays
from edgemtl.profiling.consumption import energy_of
from edgemtl.profiling.measurer import Observation, TimedCall, Untimed
from edgemtl.profiling.remote.board import FOREIGN, Board, board_at
from edgemtl.profiling.samples import Samples
from edgemtl.profiling.schema import Opening
from edgemtl.profiling.turns import untimed_calls
from edgemtl.profiling.watch import Disturbance
from edgemtl.progress import Report, silent
from edgemtl.results import FigureKind
from edgemtl.runtime import CLOSED, ENGINE_FILE, EngineSpec, OperatorTime, Outputs, check_image
from edgemtl.tasks import check_tasks

__all__ = ["RUNTIMES", "RemoteSession", "SshMeasurer", "how_to_install"]

RUNTIMES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "tensorrt": "tensorrt"}
"""The package that the agent needs on the board for each runtime."""
_INSTALLING = {
    "tensorrt": "JetPack has it for /usr/bin/python3 (apt-get install python3-libnvinfer) and pip none for Jetsons, a "
    "virtual environment sees it if made with --system-site-packages"
}


def how_to_install(package: str) -> str:
    """Words on how a board's Python gets a package."""
    return _INSTALLING.get(package, "install it there")


@dataclass(frozen=True)
class SshMeasurer:
    """See `edgemtl.profiling.Measurer`; the device's `reach` says where its ssh listens."""

    device: Device
    target: str
    kind: FigureKind = "measured"

    @property
    def arithmetic(self) -> Arithmetic:
        """The device's, as its file says; every board is held against it when an engine is opened there."""
        return self.device.arithmetic

    @property
    def untimed(self) -> Untimed | None:
        """Only a device without an address cannot be timed."""
        if self.device.reach.host:
            return None
        return Untimed(f"device {self.device.name} has no address", "write its host under reach in its file")

    def runs(self, precision: Mapping[str, str], needs: Sequence[str]) -> bool:
        """Whether the device has the engine's precision and what it needs."""
        return precision.get("engine", "fp32") in self.device.precisions and not lacking(needs, self.arithmetic)

    def open(
        self, folder: Path, threads: int = 0, modes: Sequence[Sequence[str]] | None = None, level: int = 0
    ) -> RemoteSession:
        """Copy the engine's files to the board, checked by their hashes on both sides, and open it there."""
        spec = EngineSpec.read(folder).at(level)
        if self.untimed is not None:
            raise UserError(f"{self.untimed.reason}: {self.untimed.remedy}")
        board = board_at(self.device.reach)
        _check_board(board, self.device, spec)
        names = {ENGINE_FILE, *(spec.file(folder, key).relative_to(folder).as_posix() for key in spec.files)}
        files = board.upload(folder, {name: sha256(folder / name) for name in sorted(names)})
        number = board.new_number()
        fields = {"session": number, "files": files, "threads": threads, "modes": modes, "level": level}
        reply = board.ask("open", fields).fields
        try:
            costs, notes = reply["opening"], [str(text)[:500] for text in reply["notes"]]
            session = RemoteSession(board, number, spec, None if costs is None else Opening.model_validate(costs))
        except FOREIGN as error:
            raise board.not_understood(error) from error
        for text in notes:
            warnings.warn(printable(f"board {board.reach.url}: {text}"), EngineWarning, stacklevel=2)
        return session

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
        """Time the calls on the board, by the same lines as here."""
        sessions = [_own_session(call.session) for call in calls.values()]
        requests, payload = _requests(calls)
        settings = {"rounds": rounds, "burst": burst, "settle": settle, "warmup": warmup}
        board = board_at(self.device.reach)
        reply = board.ask("compare", {**requests, **settings}, payload, report).fields
        untimed, wanted = untimed_calls(rounds, settle, warmup), 2 * rounds * burst
        try:
            drawn = {name: Samples(tuple(map(float, reply["samples"][name])), untimed, burst) for name in calls}
            if any(len(each.samples_ms) != wanted or min(each.samples_ms) < 0 for each in drawn.values()):
                raise ValueError("other samples than were asked for")
            observation = Observation(_environment(board), Disturbance(**reply["disturbance"]))
        except FOREIGN as error:
            raise board.not_understood(error) from error
        for session in sessions:
            session.observation = observation
        return drawn

    def draw_energy(self, calls: Mapping[str, TimedCall], *, report: Report = silent) -> Mapping[str, Any]:
        """Meter the calls on the board."""
        requests, payload = _requests(calls)
        board = board_at(self.device.reach)
        reply = board.ask("energy", requests, payload, report).fields
        try:
            drawn: dict[str, Any] = dict(reply["energy"])
            energy_of(drawn, dict.fromkeys(calls, ()))
        except FOREIGN as error:
            raise board.not_understood(error) from error
        return drawn


class RemoteSession:
    """An engine that is open on a board. `observation` is what the agent saw while it was timed last."""

    def __init__(self, board: Board, number: int, spec: EngineSpec, opening: Opening | None) -> None:
        self.board, self.number, self.spec, self.tasks = board, number, spec, spec.tasks
        self.opening = opening
        self.observation: Observation | None = None
        self._closed = False

    def run(self, image: NDArray[np.float32], tasks: str | Sequence[str]) -> Outputs:
        """Raw outputs of `tasks`, computed on the board; the caller's."""
        table, payload = join_arrays({"image": self._checked(image)})
        wanted = check_tasks(tasks, self.tasks)
        reply = self.board.ask("run", {"session": self.number, "tasks": wanted, "arrays": table}, payload)
        try:
            arrays = split_arrays(reply.fields["arrays"], reply.payload)
            outputs: Outputs = {task: {} for task in wanted}
            for position, (task, name) in enumerate(reply.fields["names"]):
                outputs[task][str(name)] = arrays[str(position)]
        except FOREIGN as error:
            raise self.board.not_understood(error) from error
        return outputs

    def operator_times(self, image: NDArray[np.float32], tasks: str | Sequence[str], runs: int) -> list[OperatorTime]:
        """Mean time of each operator, by the runtime's own profiler on the board."""
        table, payload = join_arrays({"image": self._checked(image)})
        wanted = check_tasks(tasks, self.tasks)
        fields = {"session": self.number, "tasks": wanted, "runs": runs, "arrays": table}
        reply = self.board.ask("operators", fields, payload).fields
        try:
            return [_operator_time(each) for each in reply["operators"]]
        except FOREIGN as error:
            raise self.board.not_understood(error) from error

    def close(self) -> None:
        """Close the engine and remove its files from the board's disk; a second time does nothing."""
        if not self._closed:
            self._closed = True
            self.board.ask("close", {"session": self.number})

    def _checked(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        if self._closed:
            raise UserError(CLOSED)
        return check_image(image, self.spec.input)


def _operator_time(entry: Mapping[str, Any]) -> OperatorTime:
    name, op, block, unit = (str(entry[key]) for key in ("name", "op", "block", "unit"))
    return OperatorTime(name, op, block, float(entry["mean_ms"]), tuple(map(str, entry["fused"])), unit)


def _requests(calls: Mapping[str, TimedCall]) -> tuple[dict[str, Any], bytes]:
    """Calls as the agent reads them, and the bytes of their images, each once."""
    images = {str(id(call.image)): call.image for call in calls.values()}
    table, payload = join_arrays(images)
    rows = {
        name: {"session": _own_session(call.session).number, "tasks": list(call.tasks), "image": str(id(call.image))}
        for name, call in calls.items()
    }
    return {"calls": rows, "arrays": table}, payload


def _own_session(session: object) -> RemoteSession:
    if not isinstance(session, RemoteSession):
        raise UserError(f"a {type(session).__name__} was not opened on the board: open it with the same measurer")
    return session


def _check_board(board: Board, device: Device, spec: EngineSpec) -> None:
    """Raise `UserError` where the board is another than its file says, or cannot run the engine."""
    own, packages, url = _environment(board), board.greeting.get("packages", []), board.reach.url
    arithmetic = str(own.get("cpu", {}).get("class", ANY))
    if device.arithmetic not in (ANY, arithmetic):
        raise UserError(
            f"board {url} ({board.greeting.get('machine')}) multiplies with {arithmetic}, the file of device "
            f"{device.name} says {device.arithmetic}: correct its arithmetic, or its reach"
        )
    if missing := lacking(spec.needs, arithmetic):
        texts = [NEEDS[need][1] if need in NEEDS else f"{need!r}" for need in missing]
        raise UserError(
            f"the engine of target {spec.target} needs {' and '.join(texts)}, board {url} ({arithmetic}) has none and "
            "would compute wrongly: export for it with --device, or for every processor with --portable"
        )
    if spec.runtime not in RUNTIMES:
        raise UserError(
            f"the agent opens engines of {', '.join(RUNTIMES)}, the target {spec.target} needs {spec.runtime}: choose "
            "another --target of the bundle"
        )
    for package in ("numpy", RUNTIMES[spec.runtime]):
        if package not in packages:
            raise UserError(
                f"board {url}: its {board.reach.python} has no {package}, which the target {spec.target} needs: "
                f"{how_to_install(package)}; or name the Python that has it, ssh://USER@HOST/path/to/python3"
            )


def _environment(board: Board) -> dict[str, Any]:
    environment = board.greeting.get("environment")
    return dict(environment) if isinstance(environment, dict) else {}
