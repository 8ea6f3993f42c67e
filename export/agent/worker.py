"""The process that opens engines and times them: requests one by one, in order, until nobody is connected any more."""

from __future__ import annotations

import shutil
import time
import warnings
from dataclasses import asdict
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any, Callable

from agent.mailbox import Mailbox
from agent.store import lay_out
from edgemtl.errors import EdgeMTLError, UserError, one_line
from edgemtl.profiling.energy import draw_energy
from edgemtl.profiling.frames import Frame
from edgemtl.profiling.fresh import measure_first_run
from edgemtl.profiling.turns import Call, draw_in_turns
from edgemtl.profiling.watch import Watch
from edgemtl.progress import Progress

__all__ = ["Worker"]

FIRST_WAIT_S, LONGEST_WAIT_S = 0.002, 0.1
PROGRESS_S = 0.5


class Abandoned(Exception):
    """Nobody was connected for longer than the lease."""


class GivenUp(Exception):
    """Nobody waits for the answer to the request that is being carried out."""


class Worker:
    """Open engines by the numbers that the other side gave them. `lock` is the open file that says that it lives."""

    def __init__(self, folder: Path, lease_s: float, lock: int) -> None:
        self._box, self._lock = Mailbox(folder, lease_s), lock
        self._sessions: dict[int, Any] = {}
        self._number, self._reported = 0, 0.0
        self._verbs: dict[str, Callable[[dict[str, Any], dict[str, Any]], Any]] = {
            "open": self._open,
            "run": self._run,
            "compare": self._compare,
            "energy": self._energy,
            "operators": self._operators,
            "close": self._close,
        }

    def run(self) -> None:
        """Serve; remove the folder and end once it is abandoned."""
        wait_s = FIRST_WAIT_S
        try:
            while self._box.folder.exists():
                request = self._box.next_request()
                if request is not None:
                    self._number = request[0]
                    self._box.answer(self._number, self._carry_out(request[1]))
                    wait_s = FIRST_WAIT_S
                    continue
                self._check_lease()
                time.sleep(wait_s)
                wait_s = min(2 * wait_s, LONGEST_WAIT_S)
        except Abandoned:
            self._box.remove()

    def _carry_out(self, request: Frame) -> Frame:
        fields = dict(request.fields)
        try:
            from edgemtl.profiling.arrays import split_arrays  # numpy: a worker without it can still clear up

            arrays = split_arrays(fields.get("arrays", []), request.payload)
            reply = self._verbs[str(fields.get("do"))](fields, arrays)
            return reply if isinstance(reply, Frame) else Frame(reply)
        except EdgeMTLError as error:
            return Frame({"error": str(error), "kind": type(error).__name__})
        except ImportError as error:
            return Frame({"error": f"the engine needs the package {error.name}", "kind": "MissingDependencyError"})
        except (Exception, SystemExit) as error:  # a runtime may raise anything
            if isinstance(error, Abandoned):
                raise
            return Frame({"error": one_line(error), "kind": "Exception"})

    def _open(self, fields: dict[str, Any], arrays: dict[str, Any]) -> dict[str, Any]:
        """Open an engine of files that are in the store, and run it once: its tasks, and what that cost."""
        import numpy as np

        from agent.runtimes import open_engine

        number, folder = int(fields["session"]), self._box.engines / str(int(fields["session"]))
        lay_out(self._box.store, folder, fields["files"])
        modes, first = fields["modes"], not self._sessions

        def run_once(session: Any) -> float:
            image = np.random.default_rng(0).standard_normal(session.spec.input, dtype=np.float32)
            start = perf_counter()
            session.run(image, modes[0] if modes else session.tasks)
            return 1000 * (perf_counter() - start)

        def opener() -> Any:
            return open_engine(folder, int(fields["threads"]), modes, int(fields["level"]))

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            session, costs = measure_first_run(opener, run_once)
        self._sessions[number] = session
        notes = [str(warning.message) for warning in caught][:20]
        return {"tasks": list(session.tasks), "opening": costs if first else None, "notes": notes}

    def _session(self, number: Any) -> Any:
        session = self._sessions.get(int(number))
        if session is None:
            raise UserError("the engine is not open on the board any more: measure again")
        return session

    def _run(self, fields: dict[str, Any], arrays: dict[str, Any]) -> Frame:
        from edgemtl.profiling.arrays import join_arrays

        outputs = self._session(fields["session"]).run(arrays["image"], fields["tasks"])
        names: list[list[str]] = []
        values: dict[str, Any] = {}
        for task, own in outputs.items():
            for name, value in own.items():
                values[str(len(names))] = value
                names.append([task, name])
        table, payload = join_arrays(values)
        return Frame({"names": names, "arrays": table}, payload)

    def _compare(self, fields: dict[str, Any], arrays: dict[str, Any]) -> dict[str, Any]:
        calls = {name: self._call(call, arrays) for name, call in fields["calls"].items()}
        with Watch() as watch:
            samples = draw_in_turns(
                calls,
                int(fields["rounds"]),
                burst=int(fields["burst"]),
                settle=int(fields["settle"]),
                warmup=int(fields["warmup"]),
                report=self._report,
            )
        return {"samples": samples, "disturbance": watch.disturbance.as_json()}

    def _energy(self, fields: dict[str, Any], arrays: dict[str, Any]) -> dict[str, Any]:
        calls = {name: self._call(call, arrays) for name, call in fields["calls"].items()}
        return {"energy": draw_energy(calls, report=self._report)}

    def _call(self, call: dict[str, Any], arrays: dict[str, Any]) -> Call:
        session, tasks, image = self._session(call["session"]), tuple(call["tasks"]), arrays[call["image"]]
        return lambda: session.run(image, tasks)

    def _operators(self, fields: dict[str, Any], arrays: dict[str, Any]) -> dict[str, Any]:
        session = self._session(fields["session"])
        times = session.operator_times(arrays["image"], fields["tasks"], int(fields["runs"]))
        return {"operators": [asdict(each) for each in times]}

    def _close(self, fields: dict[str, Any], arrays: dict[str, Any]) -> dict[str, Any]:
        session = self._sessions.pop(int(fields["session"]), None)
        if session is not None:
            session.close()
        shutil.rmtree(self._box.engines / str(int(fields["session"])), ignore_errors=True)
        return {}

    def _report(self, progress: Progress) -> None:
        """Never called while the clock runs."""
        if monotonic() - self._reported > PROGRESS_S:
            self._reported = monotonic()
            self._check_lease()
            if self._box.is_given_up(self._number):
                raise GivenUp
            self._box.show_progress(Frame({"progress": [progress.stage, progress.done, progress.total]}))

    def _check_lease(self) -> None:
        if self._box.is_abandoned():
            raise Abandoned
