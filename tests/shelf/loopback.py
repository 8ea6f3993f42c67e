"""A board on loopback: a real OpenSSH server with keys made for the test, and a cable to it that can be cut."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from getpass import getuser
from pathlib import Path

import pytest

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
PRIVILEGE_SEPARATION = Path("/run/sshd")


@dataclass
class LoopbackBoard:
    """An OpenSSH server of this user. `ssh` finds its key and host key while `PATH` begins with `bin`."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)

    def start(self) -> LoopbackBoard:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.scratch = self.folder / "scratch"
        self.scratch.mkdir(exist_ok=True)
        for key in ("host", "user"):
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / key))
        (self.folder / "authorized").write_text((self.folder / "user.pub").read_text())
        (self.folder / "authorized").chmod(0o600)
        self.port = free_port()
        self.cable = Cable(self.port)
        self.know((self.folder / "host.pub").read_text())
        self._write_ssh()
        given = {"OMP_NUM_THREADS": "1", "TMPDIR": str(self.scratch), **self.environment}
        lines = [
            f"Port {self.port}",
            "ListenAddress 127.0.0.1",
            f"HostKey {self.folder / 'host'}",
            f"AuthorizedKeysFile {self.folder / 'authorized'}",
            f"PidFile {self.folder / 'pid'}",
            "PasswordAuthentication no",
            "KbdInteractiveAuthentication no",
            "UsePAM no",
            "StrictModes no",
            "PermitRootLogin yes",
            "SetEnv " + " ".join(f'"{name}={value}"' for name, value in given.items()),
        ]
        (self.folder / "sshd_config").write_text("\n".join(lines) + "\n")
        if os.geteuid() == 0:
            PRIVILEGE_SEPARATION.mkdir(exist_ok=True)
        self._log = (self.folder / "log").open("w")
        command = [str(SSHD), "-D", "-e", "-f", str(self.folder / "sshd_config")]
        self._server = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=self._log)
        wait_for(self.port)
        return self

    def stop(self) -> None:
        self.cable.close()
        self._server.terminate()
        self._server.wait()
        self._log.close()

    def know(self, host_key: str) -> None:
        """Make this the key that `known_hosts` has of the board."""
        kind, key = host_key.split()[:2]
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.cable.port} {kind} {key}\n")

    def url(self, python: str = sys.executable) -> str:
        return f"ssh://{getuser()}@127.0.0.1:{self.cable.port}{python}"

    @property
    def left(self) -> list[str]:
        """Everything that is left in the board's temporary folder, from which an agent may just be removing itself."""
        walked = os.walk(self.scratch)  # passes over a folder that is gone when it comes to it
        paths = [Path(folder, name) for folder, folders, files in walked for name in (*folders, *files)]
        return sorted(str(path.relative_to(self.scratch)) for path in paths)

    def _write_ssh(self) -> None:
        """The system's `ssh` with a configuration of the test's own, since it never asks HOME for one."""
        config = f"""Host *
  IdentityFile {self.folder / "user"}
  IdentitiesOnly yes
  UserKnownHostsFile {self.folder / "known_hosts"}
  GlobalKnownHostsFile /dev/null
"""
        (self.folder / "ssh_config").write_text(config)
        wrapper = self.folder / "bin" / "ssh"
        wrapper.parent.mkdir(exist_ok=True)
        wrapper.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {self.folder / "ssh_config"} "$@"\n')
        wrapper.chmod(0o755)


class Cable:
    """Forwards connections from a port of its own to another one, until it is cut; it is mended by itself."""

    def __init__(self, to: int) -> None:
        self._to, self._pairs, self._open = to, [], True
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cuts = self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End every connection that there is, as a cable that is pulled and plugged in again."""
        self.cuts += 1
        while self._pairs:
            for end in self._pairs.pop():
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._open = False
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while self._open:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
            except OSError:
                continue
            self.connections += 1
            self._pairs.append((near, far))
            threading.Thread(target=self._forward, args=(near, far), daemon=True).start()

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        other = {near: far, far: near}
        with near, far, suppress(OSError):
            while True:
                for end in select.select([near, far], [], [])[0]:
                    content = end.recv(1 << 16)
                    if not content:
                        return
                    other[end].sendall(content)


def python_of(version: str) -> str | None:
    """A Python of that version that starts, as `python3.8` or in a folder of pyenv's."""
    folders = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for command in (shutil.which(f"python{version}"), *map(str, folders)):
        if command and subprocess.run([command, "-c", ""], capture_output=True, check=False).returncode == 0:
            return command
    return None


def need_sshd() -> None:
    """Skip a test where there is no OpenSSH server to start."""
    if SSHD is None:
        pytest.skip("no sshd on this machine: apt-get install openssh-server")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def wait_for(port: int) -> None:
    for _ in range(200):
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise TimeoutError("sshd does not listen")


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


DEVICE = """\
schema: edgemtl.device/1
name: my-board
title: A board of one's own
kind: board
precisions: [fp32, int8]
arithmetic: {arithmetic}
runtimes: [{{name: onnxruntime, precisions: [fp32, int8]}}, {{name: tensorrt, precisions: [fp32]}}]
reach: {{host: 127.0.0.1, user: {user}, port: {port}, python: {python}}}
"""


def write_device(folder: Path, port: int, arithmetic: str) -> Path:
    """`profiles/my-board.yaml` in a folder: the file of a board on this machine."""
    path = folder / "profiles" / "my-board.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(DEVICE.format(arithmetic=arithmetic, user=getuser(), port=port, python=sys.executable))
    return path
