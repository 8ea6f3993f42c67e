"""The one rule for names that become parts of paths, tensors and tables: checked where they are declared."""

from __future__ import annotations

import unicodedata

from edgemtl.errors import UserError, brief

__all__ = ["NAME_BYTES", "check_label", "check_name", "nfc"]

NAME_BYTES = 100
"""So that a name with an ending and a number fits what file systems take (255 bytes)."""


def check_label(text: str, what: str) -> str:
    """A text that is only shown, such as a class name; `what` it is, for errors. Returns it.

    Raises `UserError` where it is empty, longer than 100 bytes or holds what cannot be printed: control characters, new
    lines, marks that turn the direction of writing.
    """
    if not isinstance(text, str) or not text or not text.isprintable() or len(text.encode()) > NAME_BYTES:
        raise UserError(
            f"{what} {brief(text)} is no name: 1 to {NAME_BYTES} bytes of letters, digits and signs are allowed, no "
            "control characters, new lines or marks of direction"
        )
    return text


def check_name(text: str, what: str) -> str:
    """A name that may become part of a path: a label without slashes and backslashes, and without a dot in front."""
    check_label(text, what)
    if text.startswith(".") or text != text.strip() or {"/", "\\"} & set(text):
        raise UserError(
            f"{what} {brief(text)} is no name: it holds / or \\, begins with a dot, or has a space at an end"
        )
    return text


def nfc(text: str) -> str:
    """The one form of a text: an accent is part of its letter (NFC), as some systems write it and others do not."""
    return text if text.isascii() else unicodedata.normalize("NFC", text)
