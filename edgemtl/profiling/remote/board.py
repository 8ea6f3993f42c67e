"""A board with the agent on it: one connection, made again where it is cut, and requests that are carried out once."""

from __future__ import annotations

import atexit
import os
import secrets
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import IO, Any

from edgemtl.devices import Reach
from edgemtl.errors import UserError, one_line, printable
from edgemtl.files.disk import open_regular
from edgemtl.files.seals import sha256
from edgemtl.profiling.frames import ConnectionCut, Frame, read_frame, write_frame
from edgemtl.profiling.remote.pack import agent_zip, bootstrap_source
from edgemtl.profiling.remote.ssh import Unreachable, failure, no_ssh, ssh_command
from edgemtl.progress import Progress, Report, note, silent

__all__ = ["FOREIGN", "Board", "board_at", "close_boards"]

PIECE_BYTES = 2**20
FOREIGN = (AttributeError, IndexError, KeyError, TypeError, ValueError)
"""Errors of reading an answer that is not as the agent gives it."""
PATIENCE_S, LONGER = 90.0, 4 / 3
"""How long a lost board is looked for, and by what factor the agent waits longer there before it removes itself."""
MOST_CUTS = 10
"""Connections that may end in a row without a sign of life after the greeting: then it is no cable."""
ENDING_S = 15.0
_RECEIVE = 'import os;exec(b"".join(os.read(0,1) for _ in range({})).decode())'
"""Runs what comes first on standard input, and reads no byte more than that."""


class Board:
    """The agent on a board, started by the first request and removed by `close`; it goes by itself where that is lost.

    Every method raises `UserError`, one line that begins with the board, where it cannot be reached or refuses.
    """

    def __init__(self, reach: Reach, patience_s: float = PATIENCE_S) -> None:
        self.reach, self._patience_s, self._lease_s = reach, patience_s, LONGER * patience_s
        self._name, self._number, self._cuts = f"edgemtl-{secrets.token_hex(8)}", 0, 0
        self._process: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._greeting: Mapping[str, Any] | None = None

    def new_number(self) -> int:
        """A number that nothing else on this board has."""
        self._number += 1
        return self._number

    @property
    def greeting(self) -> Mapping[str, Any]:
        """Facts that the agent tells of the board: machine, packages, environment and sensors."""
        if self._greeting is None:
            self._connect()
        assert self._greeting is not None
        return self._greeting

    def ask(self, verb: str, fields: Mapping[str, Any], payload: bytes = b"", report: Report = silent) -> Frame:
        """The answer to a request; a connection that is cut meanwhile is made again, and the work there goes on."""
        number = self.new_number()
        request = Frame({**fields, "do": verb, "number": number}, payload)
        while True:
            try:
                reply = self._exchange(request, report)
                break
            except ConnectionCut as error:
                self._cuts += 1
                if self._cuts > MOST_CUTS:
                    raise UserError(
                        f"board {self.reach.url} ends every connection at the same request ({verb}): look at its "
                        "memory and its messages (dmesg), and measure again"
                    ) from error
                note(report, f"the connection to {self.reach.url} was cut: connecting again")
                self._reconnect()
        if "error" in reply.fields:
            raise self._refusal(reply.fields)
        return reply

    def upload(self, folder: Path, names: Mapping[str, str], report: Report = silent) -> dict[str, str]:
        """Copy files of a folder, by name and SHA-256, as far as they are not there yet; `names` again, for requests.

        Raises `UserError` for a file that is another than its hash says.
        """
        for name, digest in names.items():
            if sha256(folder / name) != digest:
                raise UserError(f"file {folder / name} was changed while it was copied: measure again")
        paths = {digest: folder / name for name, digest in names.items()}
        sizes = {digest: path.stat().st_size for digest, path in paths.items()}
        try:
            answer = dict(self.ask("missing", {"sizes": sizes}).fields["missing"])
            missing = {digest: min(int(answer[digest]), size) for digest, size in sizes.items() if digest in answer}
        except FOREIGN as error:
            raise self.not_understood(error) from error
        total = sum(sizes[digest] - there for digest, there in missing.items())
        copied = 0
        for digest, there in missing.items():
            with open_regular(paths[digest], "engine file") as file:
                file.seek(there)
                for offset in range(there, max(sizes[digest], there + 1), PIECE_BYTES):
                    piece = file.read(PIECE_BYTES)
                    self.ask("piece", {"sha256": digest, "size": sizes[digest], "offset": offset}, piece, report)
                    copied += len(piece)
                    report(Progress("bytes copied", copied, total))
        return dict(names)

    def not_understood(self, error: Exception) -> UserError:
        """The error for an answer that is none."""
        return UserError(f"board {self.reach.url} answers what is not understood ({one_line(error)}): measure again")

    def close(self) -> None:
        """Remove the agent and everything it has from the board, and end the connection."""
        if self._greeting is None:
            self._stop()
            return
        self._patience_s = min(self._patience_s, ENDING_S)
        try:
            with suppress(UserError):  # it cannot be reached: the agent goes by itself when its lease ends
                self.ask("remove", {})
        finally:
            self._greeting = None
            self._stop()

    def _exchange(self, request: Frame, report: Report) -> Frame:
        if self._process is None:
            self._connect()
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        write_frame(process.stdin, request)
        while True:
            reply = read_frame(process.stdout)
            self._cuts = 0
            if reply.fields.get("number") != request.fields["number"]:
                continue
            if not reply.fields.get("partial"):
                return reply
            try:
                stage, done, total = reply.fields["progress"]
                progress = Progress(str(stage), int(done), int(total))
            except FOREIGN as error:
                raise self.not_understood(error) from error
            report(progress)

    def _connect(self) -> None:
        """Log in, send the agent and wait until it greets; raises `UserError` with the reason where it does not."""
        bootstrap, agent = bootstrap_source().encode(), agent_zip()
        receive = _RECEIVE.format(len(bootstrap))
        lease_s = f"{self._lease_s:g}"
        program = [self.reach.python, "-I", "-c", receive, self._name, str(len(agent)), lease_s]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        try:
            process = self._process = subprocess.Popen(
                ssh_command(self.reach, program),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                start_new_session=True,  # Ctrl-C is ours to answer: the agent must be removed first
            )
        except OSError as error:
            raise no_ssh(error) from error
        assert process.stdin is not None and process.stdout is not None
        try:
            try:
                process.stdin.write(bootstrap + agent)
                process.stdin.flush()
            except OSError as error:
                raise ConnectionCut(str(error)) from error
            self._greeting = read_frame(process.stdout).fields
        except ConnectionCut as error:
            raise failure(self.reach, *self._stop()) from error

    def _reconnect(self) -> None:
        """Connect again, for as long as patience lasts; the agent there is the same one, if it still is."""
        deadline, wait_s = monotonic() + self._patience_s, 0.2
        self._stop()
        while True:
            try:
                self._connect()
                return
            except Unreachable as error:
                if monotonic() + wait_s > deadline:
                    raise UserError(f"{error}; the connection was cut and did not come back: measure again") from error
            sleep(wait_s)
            wait_s = min(2 * wait_s, 5.0)

    def _stop(self) -> tuple[int, str]:
        """End the connection: ssh's exit status, and what it and the board wrote to stderr."""
        process, self._process = self._process, None
        if process is None:
            return 0, ""
        for stream in (process.stdin, process.stdout):
            with suppress(OSError):
                stream.close() if stream else None
        try:
            status = process.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait()
        assert self._errors is not None
        with self._errors as errors:
            errors.seek(0)
            return status, errors.read(1 << 16).decode(errors="replace")

    def _refusal(self, reply: Mapping[str, Any]) -> UserError:
        reason, python = printable(str(reply["error"])), self.reach.python
        if reply.get("kind") == "MissingDependencyError":
            reason = f"{reason.split(', which')[0]}, which {python} there lacks"
        return UserError(f"board {self.reach.url}: {reason}")


_boards: dict[tuple[int, str], Board] = {}


def board_at(reach: Reach) -> Board:
    """The board at this address: one agent for all engines of this process, removed when it ends."""
    return _boards.setdefault((os.getpid(), reach.model_dump_json()), Board(reach))


def close_boards() -> None:
    """Remove every agent of this process from its board."""
    own = [key for key in _boards if key[0] == os.getpid()]
    for key in own:
        _boards.pop(key).close()


atexit.register(close_boards)
