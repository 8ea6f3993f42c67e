"""Untrusted JSON, parsed with limits: what Python's own parser accepts too freely is refused here, for every file."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from edgemtl.errors import UserError, brief

__all__ = ["INTEGER_DIGITS", "check_schema", "parse_json"]

INTEGER_DIGITS = 100
"""More than any count or seed has; Python's own whole numbers grow without end, and cannot be printed then."""

VALUES = 4_000_000
"""Values in one text, commas in strings counted as well: a list without anything in it takes 2 bytes there, 56 here."""

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def parse_json(content: bytes | str) -> Any:
    """The value of a JSON text (UTF-8 where it is bytes); raises `ValueError` with the problem in one line.

    Also refused: duplicate keys, NaN and infinities (1e999 too), whole numbers of more
    than 100 digits, characters that no text can hold, over 4 million values, and nesting deeper than Python's stack.
    """
    data = content.encode() if isinstance(content, str) else content
    if data.count(b",") + data.count(b"[") + data.count(b"{") > VALUES:
        raise ValueError(f"it holds more than {VALUES:,} values")
    try:
        value = json.loads(
            data.decode(), object_pairs_hook=_object, parse_constant=_constant, parse_float=_number, parse_int=_integer
        )
        if _SURROGATE.search(data):
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"it is no UTF-8 text: {error.reason} at byte {error.start}") from None
    except UnicodeEncodeError:
        raise ValueError("it holds half of a character (a lone surrogate)") from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, value in pairs:
        if name in members:
            raise ValueError(f"the key {name!r:.60} is there twice")
        members[name] = value
    return members


def _constant(text: str) -> float:
    raise ValueError(f"{text} is no number of JSON")


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text:.20} is not finite")
    return value


def _integer(text: str) -> int:
    digits = len(text.lstrip("-"))
    if digits > INTEGER_DIGITS:
        raise ValueError(f"a whole number has {digits} digits, at most {INTEGER_DIGITS} are read")
    return int(text)


def check_schema(content: Any, subject: str, schema: str, remedy: str) -> None:
    """Raise `UserError` where a file's content is of another schema, or of none."""
    given = content.get("schema") if isinstance(content, dict) else type(content).__name__
    if given != schema:
        raise UserError(f"{subject} has schema {brief(given)}, this version reads {schema!r}: {remedy}")
