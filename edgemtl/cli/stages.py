"""Progress on standard error: a bar on a terminal, plain lines at intervals elsewhere."""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from edgemtl.errors import printable
from edgemtl.progress import Progress
from edgemtl.units import format_duration

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

__all__ = ["Stages"]

LINE_SECONDS = 15.0
TITLES = {
    "masks": "steps of masks learnt",
    "search": "designs evaluated",
    "sensitivity": "choices tried a step lower",
    "precision": "blocks tried in INT8",
    "weights": "blocks tried with weights in INT4",
    "pruning": "precisions tried with fewer channels",
    "finalists": "architectures refined",
    "products": "images read for fits of layers",
    "reconstruct": "layers fitted to those of the whole net",
    "finetune": "steps of fine-tuning",
    "score": "designs scored",
    "deciding": "validation images scored",
    "reporting": "test images scored",
    "again": "steps to another answer",
    "groups": "groups of channels tried",
    "map": "groups measured",
    "trial": "groups judged",
    "latency": "engines timed",
    "check": "runs compared with the net",
    "latency table": "engines of a latency table timed",
}
"""Units of stages whose names do not say what is counted."""


class Stages:
    """Receive `Progress` events and show one stage after the other; a context manager.

    An event without a total is a line that stays; it ends the previous stage unless it belongs to it.
    """

    def __init__(self) -> None:
        self._stage, self._bar = "", _Bar("")

    def __enter__(self) -> Stages:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def end(self) -> None:
        """Leave the last line of the stage: a live bar and a table on one terminal would write over each other."""
        self._bar.end()
        self._stage, self._bar = "", _Bar("")

    def __call__(self, progress: Progress) -> None:
        """Show one event."""
        title = TITLES.get(progress.stage, progress.stage)
        if progress.stage != self._stage:
            self._bar.end()
            self._stage, self._bar = progress.stage, _Bar(title)
        if progress.total:
            self._bar.show(progress)
        else:
            print(printable(f"{title}: {progress.text}" if title else progress.text), file=sys.stderr, flush=True)


class _Bar:
    """One stage; nothing is shown before its first event."""

    def __init__(self, title: str) -> None:
        self._title, self._start, self._last = title, time.monotonic(), float("-inf")
        self._bar: RichProgress | None = None
        self._first: tuple[int, float] | None = None
        self._line = ""

    def show(self, progress: Progress) -> None:
        """Show how far the stage is; how long the rest takes is estimated from that where the work does not say."""
        now, done, total = time.monotonic(), progress.done, progress.total
        if self._first is None:
            self._first, self._bar = (done, now), _rich_bar(self._title)
        left = progress.seconds_left
        if left is None and done > self._first[0]:
            left = (now - self._first[1]) * (total - done) / (done - self._first[0])
        until = "" if left is None or done >= total else f"about {format_duration(left)} left"
        spent = f"{now - self._start:.0f} s{f', {until}' if until else ''}"
        self._line = f"{self._title}: {done}/{total}{f', {progress.text}' if progress.text else ''} ({spent})"
        if self._bar is not None:
            task = self._bar.task_ids[0]
            self._bar.update(task, completed=done, total=total, note=printable(progress.text), left=until)
        elif now - self._last >= LINE_SECONDS or done >= total:
            self._last = now
            print(printable(self._line), file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the bar's last line on the screen."""
        if self._bar is not None:
            self._bar.stop()
            print(printable(self._line), file=sys.stderr, flush=True)


def _rich_bar(title: str) -> RichProgress | None:
    """A bar on standard error; None if that is no terminal."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        return None
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    bar = Bar(
        TextColumn(escape(printable(title))),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[left]}", markup=False),
        TextColumn("{task.fields[note]}", markup=False, table_column=Column(ratio=1, no_wrap=True)),
        console=Console(stderr=True),
        transient=True,
        expand=True,
    )
    bar.start()
    bar.add_task(title, total=None, note="", left="")
    return bar
