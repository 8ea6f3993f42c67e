"""The agent's end of one connection: frames from stdin, answers to stdout, until either ends.

It stores files itself and passes the rest to the worker, which it starts. It waits without spinning, since the worker
may be measuring meanwhile.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from time import sleep
from typing import Any

from agent.mailbox import Mailbox
from agent.store import missing_files, receive_piece
from edgemtl.environment import environment
from edgemtl.errors import EdgeMTLError, one_line
from edgemtl.profiling.frames import ConnectionCut, Frame, read_frame, write_frame
from edgemtl.profiling.rails import find_rails
from edgemtl.profiling.sensors import read_sensors

__all__ = ["Relay"]

FIRST_WAIT_S, LONGEST_WAIT_S, LONGEST_END_S = 0.002, 0.1, 5.0
PACKAGES = ("numpy", "onnxruntime", "openvino", "tensorrt")


class Relay:
    """One connection to the agent's folder."""

    def __init__(self, folder: Path, lease_s: float) -> None:
        self._box, self._lease_s = Mailbox(folder, lease_s), lease_s
        self._worker: subprocess.Popen[bytes] | None = None
        self._ended: subprocess.Popen[bytes] | None = None
        self._next: Frame | None = None
        self._input = os.fdopen(0, "rb", buffering=0)
        self._output = os.fdopen(1, "wb", closefd=False)

    def run(self) -> None:
        """Serve until the connection ends, or the agent is removed."""
        self._box.attach()
        self._start_worker()
        try:
            write_frame(self._output, Frame(_greeting()))
            while True:
                request, self._next = self._next or read_frame(self._input), None
                if request.fields.get("do") == "remove":
                    self._remove(request)
                    return
                self._serve(request)
        except ConnectionCut:
            return

    def _serve(self, request: Frame) -> None:
        number, verb = int(request.fields["number"]), request.fields.get("do")
        try:
            if verb == "missing":
                reply = Frame({"missing": missing_files(self._box.store, request.fields["sizes"])})
            elif verb == "piece":
                reply = Frame(receive_piece(self._box.store, request.fields, request.payload))
            else:
                self._box.post(number, request)
                reply = self._await(number)
        except EdgeMTLError as error:
            reply = Frame({"error": str(error), "kind": type(error).__name__})
        except OSError as error:
            reply = Frame({"error": one_line(error), "kind": "OSError"})
        if self._next is None:
            write_frame(self._output, Frame({**reply.fields, "number": number}, reply.payload))

    def _await(self, number: int) -> Frame:
        """The worker's answer; one of no content where the next request comes first, for which this one is given up."""
        wait_s, shown = FIRST_WAIT_S, None
        while True:
            ready, _, _ = select.select([self._input], [], [], wait_s)
            if ready:
                self._next = read_frame(self._input)
                self._box.give_up(number)
                return Frame({})
            reply = self._box.reply(number)
            if reply is not None:
                return reply
            if self._start_worker():
                self._box.withdraw(number)
                return self._box.reply(number) or Frame({"error": self._obituary(), "kind": "WorkerEnded"})
            progress = self._box.progress()
            if progress is not None and progress != shown:
                shown = progress
                write_frame(self._output, Frame({**progress.fields, "number": number, "partial": True}))
            wait_s = min(2 * wait_s, LONGEST_WAIT_S)

    def _start_worker(self) -> bool:
        """Start a worker where none is alive; whether that was so. It holds its lock before anyone else can."""
        lock = self._box.worker_lock()
        if lock is None:
            return False
        self._ended, scratch = self._worker, str(self._box.scratch)
        with (self._box.folder / "log").open("ab") as log:
            self._worker = subprocess.Popen(
                [sys.executable, sys.argv[0], "work", str(self._box.folder), str(self._lease_s), str(lock)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"EDGEMTL_CACHE": scratch, **os.environ, "TMPDIR": scratch, "XDG_CACHE_HOME": scratch},
                pass_fds=[lock],
                start_new_session=True,
            )
        (self._box.folder / "pid").write_text(str(self._worker.pid))
        os.close(lock)
        return True

    def _obituary(self) -> str:
        """How the last worker ended, in words."""
        code = None if self._ended is None else self._ended.poll()
        how = f"signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"exit status {code}"
        if code == -signal.SIGKILL:
            how += ", as the system ends what takes more memory than it has"
        last = self._box.log_end()
        return f"the process that ran the engine ended ({how}){f': {last}' if last else ''}"

    def _remove(self, request: Frame) -> None:
        """End the worker with what it started, and remove the folder once none of them can write to it."""
        pid = (self._box.folder / "pid").read_text()
        for _ in range(int(LONGEST_END_S / LONGEST_WAIT_S)):
            if self._box.worker_lock() is not None:
                break
            with suppress(ProcessLookupError):
                os.killpg(int(pid), signal.SIGKILL)
            sleep(LONGEST_WAIT_S)
        self._box.remove()
        write_frame(self._output, Frame({"number": int(request.fields["number"])}))


def _greeting() -> dict[str, Any]:
    """Facts of the board that decide whether an engine can run there; no package is imported."""
    from importlib.util import find_spec

    rails, reason = find_rails()
    return {
        "machine": os.uname().machine,
        "packages": [name for name in PACKAGES if _is_there(find_spec, name)],
        "environment": environment(),
        "sensors": read_sensors(),
        "energy": {"rails": [rail.name for rail in rails], "reason": reason},
    }


def _is_there(find_spec: Any, name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False
