"""The errors that edgemtl raises, and suggestions for mistyped names.

One small tree: `UserError` is a mistake that the user can fix (exit status 1, one line, no traceback), and
everything else is a fault of ours (exit status 3).
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import PurePath

__all__ = [
    "EdgeMTLError",
    "EngineWarning",
    "FileError",
    "MissingDependencyError",
    "ReadError",
    "UnsupportedError",
    "UserError",
    "brief",
    "first_line",
    "naming",
    "one_line",
    "printable",
    "reason_of",
    "unknown_name",
]

_NAME_SHOWN, _LINE_SHOWN = 100, 1500
_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxstring, _BRIEF.maxother, _BRIEF.maxlong = 2, 60, 60, 40


def printable(text: str) -> str:
    """A text as a terminal may show it: what is no letter, digit, sign or space stands as Python writes it (`\\x1b`).

    So do control characters, escape sequences, new lines and marks that turn the direction of writing.
    """
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def _shortened(line: str) -> str:
    half = _LINE_SHOWN // 2
    return line if len(line) <= _LINE_SHOWN else f"{line[:half]} … {line[-half:]}"


class EdgeMTLError(Exception):
    """Base of every error that edgemtl raises on purpose."""


class UserError(EdgeMTLError):
    """An input that cannot be used: the text says what was given, what is allowed and what to do.

    Each text is one line: new lines in what was given stand escaped in it, and one of more than 1,500 characters loses
    its middle. Several problems are several texts, below the first.
    """

    def __init__(self, *texts: str) -> None:
        super().__init__(*(_shortened(printable(_shortened(text))) for text in texts))

    def __str__(self) -> str:
        return "\n  ".join(map(str, self.args))


class EngineWarning(RuntimeWarning):
    """An engine that opens, but not as it was stored or asked for; the command line prints it as a note."""


class FileError(UserError):
    """A mistake in one file, or in one place of it: `file` is its name, `reason` the rest of the text."""

    def __init__(self, file: str, reason: str) -> None:
        super().__init__(file, reason)  # both, so that it travels between processes
        self.file, self.reason = str(self.args[0]), str(self.args[1])

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


class ReadError(FileError):
    """A file that cannot be opened or read: `file` says what it is and its path, until `naming` gives it another."""

    def __str__(self) -> str:
        return f"cannot read {self.file}: {self.reason}"


class UnsupportedError(UserError):
    """A target, device or format lacks something that the input needs; the text names both."""


class MissingDependencyError(UserError):
    """An optional package is not installed; the text carries the install line."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package}, which is not installed: pip install 'edgemtl[{extra}]'"
        )


@contextmanager
def naming(file: object) -> Iterator[None]:
    """Every `UserError` raised inside becomes a `FileError` of that file: its text begins with the name."""
    try:
        yield
    except ReadError as error:
        same = error.file.endswith(PurePath(str(file)).name)  # not so where a file needs another one
        raise FileError(str(file), f"cannot be read: {error.reason}" if same else str(error)) from error
    except UserError as error:
        raise FileError(str(file), str(error)) from error


def brief(value: object) -> str:
    """A value as an error shows it: on one short line, however large it is (its whole `repr` is never built)."""
    return _BRIEF.repr(value)[:200]


def reason_of(error: BaseException) -> str:
    """The text of a foreign exception on one short line; its class where it has none."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def first_line(error: BaseException) -> str:
    """The first line of a foreign exception's text, where most say what happened; its class where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:400]


def one_line(error: BaseException) -> str:
    """A foreign exception in one short line: its class and the beginning of its text."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def unknown_name(what: str, given: str, allowed: Iterable[str]) -> UserError:
    """A `UserError` for a name outside a list, with the nearest names first (did-you-mean).

    >>> str(unknown_name("task", "dept", ["depth", "semseg"]))
    "unknown task 'dept': did you mean depth? allowed: depth, semseg"
    """
    names = sorted(allowed)
    given = given if len(given) <= _NAME_SHOWN else f"{given[:_NAME_SHOWN]}…"
    near = difflib.get_close_matches(given, names, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    return UserError(f"unknown {what} {given!r}: {hint}allowed: {', '.join(names) or 'none'}")
