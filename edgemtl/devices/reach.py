"""Addresses of boards: where ssh listens, as whom, and which Python runs the agent there."""

from __future__ import annotations

import re

from edgemtl.devices.schema import Reach
from edgemtl.errors import UserError, brief

__all__ = ["SCHEME", "SSH", "parse_reach"]

SCHEME, SSH = "ssh://", "ssh"
"""How addresses begin, and the name of the measurer of a board whose file says no more than how it is reached."""


def parse_reach(url: str) -> Reach:
    """The reach that `ssh://user@host:port/path/to/python` means; user, port and path may be left out.

    Raises `UserError` for anything else.

    >>> parse_reach("ssh://pi@raspberrypi.local/home/pi/venv/bin/python").python
    '/home/pi/venv/bin/python'
    """
    match = re.fullmatch(r"ssh://(?:([^@/]*)@)?(\[[^\]]*\]|[^:/\[]*)(?::([0-9]{1,5}))?(/.*)?", url)
    try:
        if match is None:
            raise ValueError
        user, host, port, python = match.groups()
        given = {"user": user or "", "host": host.strip("[]"), "port": int(port) if port else None}
        reach = Reach.model_validate({**given, **({"python": python} if python not in (None, "/") else {})})
        if not reach.host:
            raise ValueError
    except ValueError as error:
        raise UserError(
            f"{brief(url)} is no address of a board: write ssh://user@host, with :port and the path of its Python "
            "where they differ, for example ssh://pi@10.0.0.7:2222/home/pi/venv/bin/python"
        ) from error
    return reach
