"""The entry point: the table of verbs, and the exit status of each outcome."""

from __future__ import annotations

import errno
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import Any

import click

from edgemtl.cli.compare import compare
from edgemtl.cli.data import data
from edgemtl.cli.devices import devices
from edgemtl.cli.doctor import doctor
from edgemtl.cli.export import export
from edgemtl.cli.profile import profile
from edgemtl.cli.prune import prune
from edgemtl.cli.report import report
from edgemtl.cli.run import run
from edgemtl.cli.search import search
from edgemtl.cli.targets import targets
from edgemtl.cli.tasks import tasks
from edgemtl.cli.train import train
from edgemtl.cli.verb import Interrupted
from edgemtl.errors import EngineWarning, UserError, brief, one_line, printable
from edgemtl.signals import interrupted, terminable
from edgemtl.version import __version__

__all__ = ["main"]

DONE, USER, USAGE, FAULT, INTERRUPTED = 0, 1, 2, 3, 130
REFUSALS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EMFILE,
)
"""Errors that the system may raise at any write: only the user can mend them."""


class _Verbs(click.Group):
    """The verbs in the order in which a person meets them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    cls=_Verbs,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="\b\nFrom a budget to a report:\n"
    "  edgemtl search --budget 2GFLOPs --out runs/first\n"
    "  edgemtl export runs/first --target onnxruntime\n"
    "  edgemtl profile runs/first/bundle\n"
    "  edgemtl report runs/first",
)
@click.version_option(__version__, message="edgemtl %(version)s")
def _edgemtl() -> None:
    """From one multi-task data set and one device budget to a deployable, measured bundle.

    Exit status: 0 done, 1 input that cannot be used, 2 wrong usage, 3 a fault of edgemtl, 130 interrupted.
    """


for _command in (search, train, prune, export, profile, report, run, compare, data, devices, targets, tasks, doctor):
    _edgemtl.add_command(_command)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command line with `args` (by default the process's own, which then exits); returns the exit status."""
    words = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in words
    if not debug and not {"-v", "--verbose"} & set(words):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a terminal without Unicode gets escapes, not a fault
            stream.reconfigure(errors="backslashreplace")
    try:
        status = _call(words, obj=args is None)
        return status if isinstance(status, int) else DONE
    except click.ClickException as error:
        usage = StringIO()
        error.show(usage)
        print(_printable(usage.getvalue().rstrip("\n")), file=sys.stderr)
        return USAGE
    except Interrupted as error:
        print(_printable(f"interrupted: {error}"), file=sys.stderr)
        return INTERRUPTED
    except (click.Abort, KeyboardInterrupt):
        print("interrupted: nothing was left half-written", file=sys.stderr)
        return INTERRUPTED
    except UserError as error:
        return _failed(f"error: {error}", USER, debug)  # several lines only where a data set has several problems
    except MemoryError:
        return _failed("error: the memory of this machine does not suffice: ask for less at a time", USER, debug)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            line = f"error: the name {brief(str(error.filename))} is too long for a file: choose a shorter one"
            return _failed(line, USER, debug)
        if error.errno not in REFUSALS:
            return _failed(_fault(error), FAULT, debug)
        where = f" {printable(str(error.filename))}" if error.filename else ""
        return _failed(
            f"error: the system refused{where}: {error.strerror}; free space or choose another --out", USER, debug
        )
    except Exception as error:  # the one place where every internal error ends
        return _failed(_fault(error), FAULT, debug)


def _call(words: Sequence[str], obj: bool) -> object:
    """Run the verb; raises `KeyboardInterrupt` for whatever a library made of a Ctrl-C."""
    try:
        with terminable(), _own_warnings():
            return _edgemtl.main(words, prog_name="edgemtl", standalone_mode=False, obj=obj)
    except Interrupted:
        raise
    except Exception as error:
        if interrupted():
            raise KeyboardInterrupt from error
        raise


@contextmanager
def _own_warnings() -> Iterator[None]:
    """Print warnings of edgemtl itself as notes, each once; those of libraries are shown as Python has it, or not."""
    shown: set[str] = set()
    with warnings.catch_warnings():
        warnings.simplefilter("always", EngineWarning)
        others = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *position: Any, **more: Any) -> None:
            if not issubclass(category, EngineWarning):
                others(message, category, *position, **more)
            elif str(message) not in shown:
                shown.add(str(message))
                print(_printable(f"note: {message}"), file=sys.stderr)

        warnings.showwarning = show
        yield


def _failed(line: str, status: int, debug: bool) -> int:
    if debug:
        print(_printable(traceback.format_exc()), file=sys.stderr)
    print(_printable(line), file=sys.stderr)
    return status


def _printable(text: str) -> str:
    """Lines without control characters that a terminal would interpret."""
    return "\n".join(map(printable, text.split("\n")))


def _fault(error: Exception) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{Path(__file__).parents[1].name}/" in frame.filename] or frames
    where = f" in {Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else ""
    return (
        f"fault: {one_line(error)}{where}; this is a mistake in edgemtl: please report it "
        "with what this command prints under --debug, and with `edgemtl doctor`"
    )
