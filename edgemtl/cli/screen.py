"""Output of a verb: tables or JSON on standard output, everything else on standard error.

Names may be untrusted: everything shown passes through `printable`, which removes terminal control characters.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TextIO

from edgemtl.errors import printable

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["Screen"]

PLAIN_WIDTH = 160
GAP, EDGES = 3, 2
LONGEST_WORD = 40
"""Characters of a word that a column does not break."""


class Screen:
    """The output of a verb. With `as_json`, `output` (None: standard output) gets one JSON value and nothing else."""

    def __init__(self, as_json: bool = False, output: TextIO | None = None) -> None:
        self.as_json, self._output = as_json, output

    def note(self, text: str) -> None:
        """One line for a person, on standard error."""
        print(printable(text), file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """A line of the result; with JSON it moves to standard error."""
        print(printable(text), file=sys.stderr if self.as_json else sys.stdout, flush=True)

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """A table of the result; cells are plain text, whoever wrote them. Numbers are aligned to the right.

        If columns would have to break words, the rows are listed one below the other instead, one figure per line.
        """
        from rich.console import Console
        from rich.text import Text

        stream = sys.stderr if self.as_json else sys.stdout
        width = None if stream.isatty() else shutil.get_terminal_size((PLAIN_WIDTH, 24)).columns
        console = Console(file=stream, width=width, highlight=False)
        names = [printable(name) for name in columns]
        texts = [[printable(_cell(value)) for value in row] for row in rows]
        widths = _widths([*zip(names, *texts, strict=True)], console.width - GAP * (len(names) - 1) - EDGES)
        console.print(Text(printable(title)))
        console.print(_grid(names, texts, widths) if widths else Text(_listed(names, texts)))

    def json(self, value: Any) -> None:
        """Print the one JSON value of the result, unless the format is table."""
        if self.as_json:
            print(json.dumps(value, indent=2, allow_nan=False), file=self._output or sys.stdout, flush=True)


def _grid(names: Sequence[str], rows: Sequence[Sequence[str]], widths: Sequence[int]) -> Table:
    """Columns side by side; numbers are aligned to the right."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(names):
        numeric = bool(rows) and all(_numeric(row[index]) for row in rows)
        justify: Literal["left", "right"] = "right" if numeric else "left"
        table.add_column(Text(name), justify=justify, overflow="fold", width=widths[index])
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _listed(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows one below the other: the first column, then a line for each other cell that is not empty."""
    lines = []
    for row in rows:
        lines.append(f"\n{row[0]}")
        lines += [f"  {name}: {text}" for name, text in zip(names[1:], row[1:], strict=True) if text != "-"]
    return "\n".join([*lines, ""])


def _widths(columns: Sequence[Sequence[str]], space: int) -> list[int] | None:
    """Widths of columns that share `space` as their texts need it; None where that does not hold all their words."""
    widths = [_word_width(texts) for texts in columns]
    spare = space - sum(widths)
    wanted = [max(map(len, texts)) - width for texts, width in zip(columns, widths, strict=True)]
    if spare < 0:
        return None
    share = min(1.0, spare / (sum(wanted) or 1))
    return [width + int(more * share) for width, more in zip(widths, wanted, strict=True)]


def _word_width(texts: Sequence[str]) -> int:
    """Characters of the longest word of a column, a figure with its unit being one word, as far as it is not broken."""
    words = [word for text in texts for word in ([text] if _numeric(text) else text.split())]
    return min(max(map(len, words), default=0), LONGEST_WORD)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _numeric(text: str) -> bool:
    return text == "-" or text[:1].isdigit() or (text[:1] in "+-" and text[1:2].isdigit())
