"""Everything that is wrong with a data set, told at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from edgemtl.errors import UserError

__all__ = ["SHOWN", "Problems"]

SHOWN = 20


class Problems:
    """Collects problems; `stop` raises them as one `UserError` with the first twenty and the number of the others."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._texts: list[str] = []
        self.count = 0

    def add(self, text: str) -> None:
        """One more problem; the same text counts once while it is among those shown."""
        if text in self._texts:
            return
        self.count += 1
        if len(self._texts) < SHOWN:
            self._texts.append(text)

    @contextmanager
    def collect(self) -> Iterator[None]:
        """A `UserError` raised inside becomes a problem."""
        try:
            yield
        except UserError as error:
            self.add(str(error))

    def stop(self) -> None:
        """Raise what was collected; nothing happens where nothing was."""
        if not self.count:
            return
        more = f"\n  and {self.count - SHOWN} more" if self.count > SHOWN else ""
        lines = "".join(f"\n  {text}" for text in self._texts)
        raise UserError(f"{self._what} has {self.count} problem{'s'[: self.count - 1]}:{lines}{more}")
