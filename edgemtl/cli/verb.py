"""Common parts of all verbs: their flags, how they are declared, and what Ctrl-C leaves behind."""

from __future__ import annotations

import functools
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path
from typing import Any, TextIO

import click

from edgemtl.cli.screen import Screen
from edgemtl.errors import UserError, brief
from edgemtl.files.names import check_name
from edgemtl.signals import interrupted

__all__ = [
    "Interrupted",
    "interruptible",
    "new_run",
    "parse_shapes",
    "parse_size",
    "reserved_output",
    "resume_line",
    "verb",
]

Body = Callable[..., None]
STDOUT, STDERR = 1, 2


class Interrupted(Exception):
    """Ctrl-C; the text says what is usable and how to resume."""


def verb(name: str, *, examples: Sequence[str]) -> Callable[[Body], click.Command]:
    """Declare a verb: its docstring is the help, `examples` are shown below the options.

    The function gets a `Screen` as `screen` beside its own parameters; `--format`, `-v` and `--debug` are added here.
    """

    def declare(body: Body) -> click.Command:
        @functools.wraps(body)
        def call(format_: str, **values: Any) -> None:
            if format_ != "json":
                body(screen=Screen(), **values)
                return
            with reserved_output(for_good=bool(click.get_current_context().obj)) as output:
                body(screen=Screen(True, output), **values)

        epilog = "\b\nExamples:\n" + "\n".join(f"  {line}" for line in examples)
        command = click.command(name, epilog=epilog)(call)
        command.params += _COMMON
        return command

    return declare


_COMMON: tuple[click.Parameter, ...] = (
    click.Option(
        ["--format", "format_"],
        type=click.Choice(["table", "json"]),
        default="table",
        help="json: one JSON value on standard output, everything else on standard error.",
    ),
    click.Option(["-v", "--verbose"], is_flag=True, expose_value=False, help="Show other packages' warnings too."),
    click.Option(["--debug"], is_flag=True, expose_value=False, help="Show the traceback of an error."),
)


@contextmanager
def reserved_output(for_good: bool) -> Iterator[TextIO | None]:
    """A private stream for standard output: everything else written there goes to standard error.

    This covers prints of a user's module and libraries in C alike, with `for_good` also what they write when
    the process ends. None where there is no standard output.
    """
    shown = sys.stdout
    if shown is None:
        yield None
        return
    shown.flush()
    copy = os.dup(STDOUT)
    output = os.fdopen(os.dup(STDOUT), "w", encoding=shown.encoding) if _descriptor(shown) == STDOUT else shown
    try:
        with suppress(OSError):  # there may be no standard error
            os.dup2(STDERR, STDOUT)
        with redirect_stdout(sys.stderr):
            yield output
    finally:
        shown.flush()
        if output is not shown:
            output.close()
        if not for_good:
            os.dup2(copy, STDOUT)
        os.close(copy)


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except OSError:  # a caller in the same process put another stream there
        return None


@contextmanager
def interruptible(usable: str, begun: Sequence[Path] = ()) -> Iterator[None]:
    """Turn Ctrl-C or SIGTERM inside the block into one line: what is usable and how to resume.

    If none of the files in `begun` exists, the work had not begun and the line says so.
    """
    try:
        yield
    except BaseException as error:
        if not (isinstance(error, KeyboardInterrupt) or (isinstance(error, Exception) and interrupted())):
            raise
        if begun and not any(path.is_file() for path in begun):
            usable = "nothing was begun: call the same command again"
        raise Interrupted(usable) from None


def resume_line(out: Path) -> str:
    """The command that resumes this process's work in the folder `out`."""
    given = [word for word in sys.argv[1:] if word != "--resume"]
    named = any(word == "--out" or word.startswith("--out=") for word in given)
    return shlex.join(["edgemtl", *given, *([] if named else ["--out", str(out)]), "--resume"])


def new_run(out: Path | None, name: str, resume: bool) -> Path:
    """The folder of a run: what `--out` says, else the first free `runs/NAME-N`.

    Nothing is created yet. Raises `UserError` where a run is to be resumed but not named, and where the folder could
    not be created: better now than after an hour of work.
    """
    if out is None and resume:
        raise UserError("--resume does not say which run: name its folder with --out")
    free = (Path("runs") / f"{name}-{number}" for number in range(1, sys.maxsize))
    folder = out or next(path for path in free if not path.exists())
    check_name(folder.absolute().name, "--out:")
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise UserError(f"--out {folder}: {there} is not a folder that can be written to; choose another one")
    return folder


def parse_size(text: str | None) -> tuple[int, int] | None:
    """(height, width) of `192x256`; None for None. Raises `UserError` for anything else."""
    if text is None:
        return None
    match = re.fullmatch(r"0*([1-9][0-9]{0,5})x0*([1-9][0-9]{0,5})", text.lower())
    if match is None:
        raise UserError(f"size {brief(text)} is not understood: write HEIGHTxWIDTH in pixels, for example 192x256")
    return int(match[1]), int(match[2])


def parse_shapes(texts: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """Sizes by name of `image=1x3x480x640`, each given once; the name is "" in `1x3x480x640`. Raises `UserError`."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, _, written = text.rpartition("=")
        sizes = written.lower().split("x")
        if not all(size.isascii() and size.isdigit() and len(size) < 10 and int(size) for size in sizes):
            raise UserError(f"shape {text!r} is not understood: write NAME=SIZES, for example image=1x3x480x640")
        if name in shapes:
            raise UserError(f"shape of {name or 'the only input'!r} is given twice: give it once")
        shapes[name] = tuple(map(int, sizes))
    return shapes
