"""Files of strangers, damaged at random and on purpose: none may end in a fault, a hang, or be silently accepted.

Each case takes one of everything that a stranger may hand over (a manifest, an engine, a run's results, designs and
journal, a profile, a space, a device, a data set, weights, ONNX files, pictures), changes one thing (bits, lengths,
types, extreme numbers, nesting, links, pipes, devices, escape sequences), and reads it through the public function or
the command line, in a process with a time limit and 3 GiB to grow by. One line that refuses is right. So is an answer
that equals the whole file's, or, of what carries no hash, says what the damaged file says (`_strangers.py`).
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import resource
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from _common import Outcome, Row, main, say
from _damage import as_link_outside, damages

CASES, QUICK_CASES = 1000, 60
TIMEOUT_S = 60
GROWTH_BYTES = 3 * 2**30
LONGEST_LINE = 2000
REFUSED, SAME, MEANT = "refused", "same", "meant"
FAULT, HANG, ACCEPTED = "fault", "hang", "accepted"


@dataclass(frozen=True)
class Case:
    """The change made to a file, and its outcome."""

    number: int
    kind: str
    file: str
    damage: str
    outcome: str
    detail: str = ""
    seconds: float = 0.0


def read_damaged(kind: str, folder: Path, was: Any, linked: bool) -> tuple[str, str]:
    """The outcome of one case, in words; `was` is what the whole files say, `linked` whether one lies elsewhere now."""
    from _strangers import KINDS

    from edgemtl.errors import UserError

    os.chdir(folder)
    try:
        answer = KINDS[kind].read(folder)
    except UserError as error:
        message = str(error)
        if len(message) <= LONGEST_LINE:
            return REFUSED, message
        return FAULT, f"{len(message)} characters: {message[:200]}"
    except BaseException:
        return FAULT, traceback.format_exc()[-1500:]
    if linked and KINDS[kind].own:
        return ACCEPTED, "read through a link out of the folder"
    if answer is None:
        return REFUSED, "not read"
    if answer == was or (KINDS[kind].lines and all(each in was for each in answer)):
        return SAME, ""
    says = KINDS[kind].says
    meant = not KINDS[kind].sealed if says is None else says(folder) == answer
    return (MEANT, "") if meant else (ACCEPTED, f"{answer!r:.300}")


def serve(connection: Connection, whole: str, kinds: Sequence[str]) -> None:
    """Run cases in a process of its own, one after another, until the other end closes."""
    from _strangers import KINDS

    _quiet()
    os.chdir(whole)
    was = {name: KINDS[name].read(Path(whole)) for name in kinds}
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + GROWTH_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    connection.send("ready")
    while True:
        kind, folder, linked = connection.recv()
        try:
            outcome = read_damaged(kind, Path(folder), was[kind], linked)
        except BaseException:
            outcome = FAULT, traceback.format_exc()[-1500:]
        connection.send(outcome)


def _quiet() -> None:
    """Libraries in C write where they like."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nothing, stream)


class Reader:
    """A process that reads cases; one that hangs or dies is replaced."""

    def __init__(self, whole: Path, kinds: Sequence[str]) -> None:
        self._whole, self._kinds = whole, kinds
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, other = context.Pipe()
        self._process: Any = context.Process(target=serve, args=(other, str(self._whole), self._kinds), daemon=True)
        self._process.start()
        other.close()
        assert self._connection.poll(300) and self._connection.recv() == "ready"

    def ask(self, kind: str, folder: Path, linked: bool) -> tuple[str, str]:
        self._connection.send((kind, str(folder), linked))
        try:
            if self._connection.poll(TIMEOUT_S):
                outcome, detail = self._connection.recv()
                return str(outcome), str(detail)
            found = HANG, f"no answer in {TIMEOUT_S} s"
        except EOFError:
            self._process.join(5)
            found = FAULT, f"the process died with status {self._process.exitcode}"
        self.close()
        self._start()
        return found

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._connection.close()


def cases(whole: Path, numbers: Sequence[int], kinds: Sequence[str] | None = None) -> Iterator[Case]:
    """The cases of these numbers, each drawn from its own number; `whole` is what `_strangers.build` wrote."""
    from _strangers import KINDS

    names = list(kinds or KINDS)
    reader = Reader(whole, names)
    try:
        for number in numbers:
            rng, name = random.Random(f"edgemtl {number}"), names[number % len(names)]
            with _copy(whole) as folder:
                file = rng.choice(sorted(folder.glob(rng.choice(KINDS[name].files))))
                damage = rng.choice(damages(file))
                shown = file.relative_to(folder).as_posix()
                damage(file, rng)
                start = time.monotonic()
                outcome, detail = reader.ask(name, folder, damage is as_link_outside)
            yield Case(number, name, shown, damage.__name__, outcome, detail, round(time.monotonic() - start, 2))
    finally:
        reader.close()


@contextmanager
def _copy(whole: Path) -> Iterator[Path]:
    """A copy to damage, and a folder outside of it."""
    with tempfile.TemporaryDirectory(prefix="edgemtl-bad-") as scratch:
        folder, outside = Path(scratch) / "work", Path(scratch) / "outside"
        shutil.copytree(whole, folder)
        outside.mkdir()
        os.environ["EDGEMTL_OUTSIDE"] = str(outside)
        yield folder


@contextmanager
def whole_files(with_run: bool = True) -> Iterator[Path]:
    """One of everything, as edgemtl writes it."""
    from _strangers import build

    here = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="edgemtl-whole-") as folder:
        try:
            build(Path(folder), with_run)
        finally:
            os.chdir(here)
        yield Path(folder)


def run(options: argparse.Namespace) -> Outcome:
    """Count what came of the cases."""
    count = options.cases or (QUICK_CASES if options.quick else CASES)
    found = []
    with whole_files() as whole:
        for case in cases(whole, range(options.first, options.first + count), options.kind):
            found.append(case)
            if case.outcome in (FAULT, HANG, ACCEPTED):
                say(f"{case.number}: {case.kind}, {case.file}, {case.damage}: {case.outcome}\n{case.detail}")
            elif len(found) % 100 == 0:
                say(f"{len(found)} cases")
    outcomes = Counter(case.outcome for case in found)
    rows = [
        Row("faults", outcomes[FAULT], "cases", 0),
        Row("hangs", outcomes[HANG], "cases", 0),
        Row("accepted", outcomes[ACCEPTED], "cases", 0),
        Row("cases", len(found), "cases", None if options.quick or options.cases else 300, 1000, lower_is_better=False),
    ]
    by_kind = Counter(f"{case.kind} {case.outcome}" for case in found)
    wrong = [asdict(case) for case in found if case.outcome in (FAULT, HANG, ACCEPTED)]
    slowest = [
        f"{case.number} {case.kind} {case.damage} {case.seconds} s"
        for case in sorted(found, key=lambda case: -case.seconds)[:10]
    ]
    return Outcome(
        rows, {"slowest": slowest, "outcomes": dict(outcomes), "by_kind": dict(sorted(by_kind.items())), "wrong": wrong}
    )


def _flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cases", type=int, help="how many, instead of 1,000")
    parser.add_argument("--first", type=int, default=0, help="number of the first case: one case alone is --cases 1")
    parser.add_argument("--kind", action="append", help="only files of this kind; may be given again")


if __name__ == "__main__":
    main(run, __doc__, _flags)
