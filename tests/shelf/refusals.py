"""The line with which bad input is refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from edgemtl.errors import UserError


def refused(action: Callable[[], object], one_line: bool = True) -> str:
    """The message of the `UserError` that an action must raise: one line, where it does not list several problems."""
    with pytest.raises(UserError) as error:
        action()
    message = str(error.value)
    assert not one_line or "\n" not in message
    return message
