"""A measurer in one file: engines are sent to a server, which runs and times them, over a socket.

`python bench_measurer.py` is the server: it prints its port. The device's profile names `bench` as its measurer and
says under `reach` where the server listens.
"""

from __future__ import annotations

import base64
import json
import socket
import socketserver
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edgemtl.arithmetic import Arithmetic, lacking
from edgemtl.devices import Device
from edgemtl.errors import EdgeMTLError, UserError
from edgemtl.profiling import Samples, TimedCall, compare
from edgemtl.progress import Report, silent
from edgemtl.results import FigureKind
from edgemtl.runtime import EngineSpec, OperatorTime, Session, open_engine

TIMEOUT_S = 60


def packed(value: Any) -> Any:
    """Arrays, in whatever they stand, as JSON."""
    if isinstance(value, np.ndarray):
        return {"array": base64.b64encode(value.tobytes()).decode(), "shape": value.shape, "dtype": str(value.dtype)}
    return {name: packed(each) for name, each in value.items()} if isinstance(value, dict) else value


def unpacked(value: Any) -> Any:
    if isinstance(value, dict) and "array" in value:
        content = np.frombuffer(base64.b64decode(value["array"]), value["dtype"])
        return content.reshape(value["shape"]).copy()
    return {name: unpacked(each) for name, each in value.items()} if isinstance(value, dict) else value


@dataclass(frozen=True)
class BenchMeasurer:
    """See `edgemtl.profiling.Measurer`."""

    device: Device
    target: str
    kind: FigureKind = "measured"
    untimed: None = None

    @property
    def arithmetic(self) -> Arithmetic:
        return self.device.arithmetic

    def runs(self, precision: Mapping[str, str], needs: Sequence[str]) -> bool:
        return not lacking(needs, self.arithmetic)

    def open(
        self, folder: Path, threads: int = 0, modes: Sequence[Sequence[str]] | None = None, level: int = 0
    ) -> BenchSession:
        spec = EngineSpec.read(folder).at(level)
        files = {name: base64.b64encode((folder / name).read_bytes()).decode() for name in {*spec.files.values()}}
        files["engine.json"] = base64.b64encode((folder / "engine.json").read_bytes()).decode()
        answer = self.ask("open", files=files, threads=threads, modes=modes, level=level)
        return BenchSession(self, answer["session"], tuple(answer["tasks"]))

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
        sent = {
            name: {"session": vars(call.session)["number"], "image": packed(call.image), "tasks": list(call.tasks)}
            for name, call in calls.items()
        }
        counts = {"rounds": rounds, "burst": burst, "settle": settle, "warmup": warmup}
        answer = self.ask("compare", calls=sent, counts=counts)
        return {
            name: Samples(tuple(each["samples_ms"]), each["warmup"], each["visit"]) for name, each in answer.items()
        }

    def ask(self, verb: str, **request: Any) -> Any:
        """The server's answer to one line of JSON."""
        reach = self.device.reach
        try:
            with socket.create_connection((reach.host, reach.port), TIMEOUT_S) as connection:
                connection.sendall(json.dumps({"verb": verb, **request}).encode() + b"\n")
                answer = json.loads(connection.makefile("rb").readline())
        except (OSError, ValueError) as error:
            raise UserError(
                f"device {self.device.name} at {reach.host}:{reach.port} cannot be reached ({error}): start its server"
            ) from error
        if "refused" in answer:
            raise UserError(answer["refused"])
        return answer["answer"]


@dataclass
class BenchSession:
    """An engine that is open on the server."""

    measurer: BenchMeasurer
    number: int
    tasks: tuple[str, ...]

    def run(self, image: np.ndarray[Any, Any], tasks: str | Sequence[str]) -> Any:
        wanted = [tasks] if isinstance(tasks, str) else list(tasks)
        return unpacked(self.measurer.ask("run", session=self.number, image=packed(image), tasks=wanted))

    def operator_times(self, image: np.ndarray[Any, Any], tasks: str | Sequence[str], runs: int) -> list[OperatorTime]:
        return []

    def close(self) -> None:
        self.measurer.ask("close", session=self.number)


class Server(socketserver.TCPServer):
    """Runs what is sent, one request after another."""

    sessions: dict[int, Session] = {}  # noqa: RUF012
    closed: set[int] = set()  # noqa: RUF012

    def answer(self, verb: str, request: dict[str, Any]) -> Any:
        if verb == "open":
            return self.opened(request)
        if verb == "compare":
            calls = {name: self.call(each) for name, each in request["calls"].items()}
            return {name: asdict(samples) for name, samples in compare(calls, **request["counts"]).items()}
        if verb == "count":
            return len(self.sessions)
        if verb == "close" and request["session"] in self.closed:
            return None
        if request["session"] in self.closed:
            raise UserError("this engine was closed: open it again")
        if verb == "run":
            return packed(self.call(request)())
        self.closed.add(request["session"])
        self.sessions.pop(request["session"]).close()
        return None

    def opened(self, request: dict[str, Any]) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            for name, content in request["files"].items():
                (Path(folder) / name).write_bytes(base64.b64decode(content))
            session = open_engine(Path(folder), request["threads"], request["modes"], request["level"])
        number = len(self.sessions) + len(self.closed)
        self.sessions[number] = session
        return {"session": number, "tasks": session.tasks}

    def call(self, request: dict[str, Any]) -> Any:
        session, image = self.sessions[request["session"]], unpacked(request["image"])
        return lambda: session.run(image, request["tasks"])


class Handler(socketserver.StreamRequestHandler):
    server: Server

    def handle(self) -> None:
        request = json.loads(self.rfile.readline())
        try:
            answer = {"answer": self.server.answer(request.pop("verb"), request)}
        except EdgeMTLError as error:
            answer = {"refused": str(error)}
        self.wfile.write(json.dumps(answer).encode() + b"\n")


def serve() -> None:
    with Server(("127.0.0.1", 0), Handler) as server:
        sys.stdout.write(f"{server.server_address[1]}\n")
        sys.stdout.flush()
        server.serve_forever()


if __name__ == "__main__":
    serve()
