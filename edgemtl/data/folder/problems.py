"""All problems of a data set, reported at once: files with the same problem are one finding."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from edgemtl.errors import FileError, UserError

__all__ = ["SHOWN", "Finding", "Problems"]

SHOWN = 20
_NUMBERS = re.compile(r"\d(?:[\d.,]*\d)?(?:e[+-]?\d+)?")
_LISTS = re.compile(r"#(?:(?:, | x | to | and )#)+(?: more)?")


@dataclass(frozen=True)
class Finding:
    """A problem, with the first file that has it (None: the whole set) and the number of files."""

    text: str
    file: str
    count: int

    def __str__(self) -> str:
        more = f" (and {self.count - 1} more like it)" if self.count > 1 else ""
        return f"{self.file}: {self.text}{more}" if self.file else f"{self.text}{more}"


class _Findings:
    """Findings by their cause, in the order in which they were made."""

    def __init__(self) -> None:
        self.by_cause: dict[str, Finding] = {}
        self._seen: set[str] = set()

    def add(self, text: str, file: str, cause: str | None) -> None:
        """The same text of the same file counts once; texts that differ in numbers only have one cause."""
        if f"{file}: {text}" in self._seen:
            return
        self._seen.add(f"{file}: {text}")
        cause = _cause(text) if cause is None else cause
        first = self.by_cause.get(cause, Finding(text, file, 0))
        self.by_cause[cause] = Finding(first.text, first.file, first.count + 1)


def _cause(text: str) -> str:
    plain = _LISTS.sub("#", _NUMBERS.sub("#", text))
    return plain.replace("values #", "value #").replace("pixels:", "pixel:")


class Problems:
    """Collects problems, which make a data set unusable, and warnings, which do not.

    `stop` raises the problems as one `UserError`: twenty causes, and how many more there are.
    """

    def __init__(self, what: str) -> None:
        self._what = what
        self._problems, self._warnings = _Findings(), _Findings()

    @property
    def count(self) -> int:
        """How many problems there are, each file for itself."""
        return sum(finding.count for finding in self.problems)

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The problems, one for each cause."""
        return tuple(self._problems.by_cause.values())

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The warnings, one for each cause."""
        return tuple(self._warnings.by_cause.values())

    def add(self, text: str, file: str = "", cause: str | None = None) -> None:
        """Add a problem; its cause is `cause`, or else its text without numbers."""
        self._problems.add(text, file, cause)

    def warn(self, text: str, file: str = "", cause: str | None = None) -> None:
        """One more warning."""
        self._warnings.add(text, file, cause)

    @contextmanager
    def collect(self) -> Iterator[None]:
        """A `UserError` raised inside becomes a problem."""
        try:
            yield
        except FileError as error:
            self.add(error.reason, error.file)
        except UserError as error:
            self.add(str(error))

    def stop(self) -> None:
        """Raise what was collected; nothing happens where nothing was."""
        if not self.count:
            return
        lines = [str(finding) for finding in self.problems[:SHOWN]]
        if more := sum(finding.count for finding in self.problems[SHOWN:]):
            lines.append(f"and {more} more")
        raise UserError(f"{self._what} has {self.count} problem{'s'[: self.count - 1]}:", *lines)
