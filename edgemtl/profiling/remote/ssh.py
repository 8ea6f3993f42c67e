"""The system's `ssh`: how it is called, and its failures in one line each.

The user's own configuration, keys and ssh agent are used as they are; a master connection of his is used too. Only two
things are settled here: host keys are checked, and nothing is asked at a prompt.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from edgemtl.devices import Reach
from edgemtl.errors import UserError, reason_of

__all__ = ["Unreachable", "failure", "no_ssh", "ssh_command"]

OPTIONS = {
    "BatchMode": "yes",
    "StrictHostKeyChecking": "yes",
    "ConnectTimeout": "10",
    "ServerAliveInterval": "5",
    "ServerAliveCountMax": "3",
    "ClearAllForwardings": "yes",
}
"""Silence of 15 s ends a connection, so that a pulled cable is noticed."""
CONNECTION_FAILED, NOT_FOUND = 255, 127
AGENT_SAYS = "edgemtl: "


class Unreachable(UserError):
    """A board that does not answer now, and may later."""


def ssh_command(reach: Reach, program: Sequence[str]) -> list[str]:
    """The command that runs a program on the board, its standard streams those of the command."""
    command = ["ssh", "-T", "-x", "-a"]
    for name, value in OPTIONS.items():
        command += ["-o", f"{name}={value}"]
    command += ["-p", str(reach.port)] if reach.port else []
    command += ["-l", reach.user] if reach.user else []
    return [*command, "--", reach.host, f"exec {shlex.join(program)}"]


def no_ssh(error: OSError) -> UserError:
    """The error where `ssh` itself cannot be started."""
    return UserError(f"ssh cannot be started ({reason_of(error)}): install OpenSSH's client (openssh-client)")


def failure(reach: Reach, status: int, output: str) -> UserError:
    """The error of a command that ended with this status, before the agent answered, and wrote this to stderr."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    last = lines[-1] if lines else f"exit status {status}"
    board = f"board {reach.url}"
    if status == CONNECTION_FAILED:
        return _connection_failure(reach, board, output, last)
    if reason := next((line[len(AGENT_SAYS) :] for line in reversed(lines) if line.startswith(AGENT_SAYS)), None):
        return UserError(f"{board}: {reason}")
    if status == NOT_FOUND or "No such file" in output or "not found" in output:
        return UserError(
            f"{board} has no {reach.python}: install Python 3.8 or newer there, or name the one to use, "
            f"{reach.model_copy(update={'python': '/path/to/python3'}).url}"
        )
    return UserError(f"{board}: its shell did not run {reach.python} ({last}): log in by hand and try it")


def _connection_failure(reach: Reach, board: str, output: str, last: str) -> UserError:
    port, user = f"-p {reach.port} " if reach.port else "", f"{reach.user}@" if reach.user else ""
    by_hand = f"ssh {port}{user}{reach.host}"
    if "HOST IDENTIFICATION HAS CHANGED" in output:
        return UserError(
            f"{board} shows another host key than the one that is known: somebody may be in between; if it was "
            f"installed anew, remove the old key with `ssh-keygen -R {_known_as(reach)}` and log in once by hand"
        )
    if "Host key verification failed" in output:
        return UserError(f"{board}: its host key is not known: log in once with `{by_hand}`, compare and accept it")
    if "Permission denied" in output or "Too many authentication failures" in output:
        return UserError(
            f"{board} refuses the login ({last}): check the user, and copy your key there with "
            f"`{by_hand.replace('ssh ', 'ssh-copy-id ', 1)}`"
        )
    if "Could not resolve hostname" in output:
        return UserError(f"{board}: no host is called {reach.host}: check the name, or give its IP address")
    return Unreachable(f"{board} cannot be reached ({last}): is it on, and does its ssh listen there? try `{by_hand}`")


def _known_as(reach: Reach) -> str:
    """The board's name in `known_hosts`, as a shell takes it."""
    return shlex.quote(f"[{reach.host}]:{reach.port}") if reach.port and reach.port != 22 else reach.host
