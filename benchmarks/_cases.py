"""Cases of a long benchmark, each kept when it is finished: the whole can be run in pieces of minutes."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _common import say
from _runs import ROOT, RUNS

from edgemtl.environment import environment
from edgemtl.files.disk import write_json

_PACKAGES = ROOT / "edgemtl"


@dataclass
class Cases:
    """Results of finished cases by name (JSON values, with their seconds), in the file `path`.

    Those of another `state` (code, packages, options) are begun anew. From `ends_at` on (`time.monotonic`; None:
    never) no other case is begun, and the program ends.
    """

    path: Path
    state: Mapping[str, Any]
    ends_at: float | None = None
    results: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        content = json.loads(self.path.read_text()) if self.path.is_file() else {}
        if content.get("state") == self.state:
            self.results, self.seconds = content["results"], content["seconds"]
            say(f"{len(self.results)} cases are finished: {self.path}")
        elif content:
            say(f"{self.path} is of other code, packages or options: it is begun anew")

    @property
    def key(self) -> str:
        """A short hash of the state, for names of folders that belong to it."""
        return hashlib.sha256(json.dumps(self.state, sort_keys=True).encode()).hexdigest()[:8]

    def own_folder(self, folder: Path) -> Path:
        """A folder in `folder` for files of these cases, made where it is not there; those of other states go."""
        own = folder / self.key
        own.mkdir(parents=True, exist_ok=True)
        for other in folder.iterdir():
            if other != own:
                shutil.rmtree(other)
        return own

    def result(self, name: str, compute: Callable[[], Any]) -> Any:
        """The result of a case: the one that is kept, else what `compute` returns, which is kept from then on."""
        if name not in self.results:
            if self.ends_at is not None and time.monotonic() > self.ends_at:
                sys.exit(f"{len(self.results)} cases are finished, and more remain: the same command goes on")
            say(name)
            started = time.monotonic()
            self.results[name] = compute()
            self.seconds[name] = round(time.monotonic() - started, 2)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {"state": self.state, "results": self.results, "seconds": self.seconds})
        return self.results[name]


def add_minutes(parser: argparse.ArgumentParser) -> None:
    """The option that bounds one piece of a run."""
    parser.add_argument(
        "--minutes", type=float, help="begin no case after so many minutes; the same command then goes on"
    )


def cases_of(options: argparse.Namespace, inputs: Mapping[str, str] | None = None) -> Cases:
    """The cases of the benchmark that runs, made by this code, these packages and `options`, from `inputs` (hashes)."""
    name = Path(sys.argv[0]).stem + ("-quick" if options.quick else "")
    own = {
        key: str(value) if isinstance(value, Path) else value
        for key, value in vars(options).items()
        if key not in ("format", "minutes")
    }
    common = Path(__file__).parent.glob("_*.py")
    code = hash_of([*_PACKAGES.rglob("*.py"), *(ROOT / "nas").glob("*.yaml"), *common, Path(sys.argv[0]).resolve()])
    state = {"code_sha256": code, "packages": environment()["packages"], "options": own, "inputs": dict(inputs or {})}
    ends_at = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    return Cases(RUNS / "cases" / f"{name}.json", state, ends_at)


def hash_of(files: Iterable[Path]) -> str:
    """SHA-256 of files with their names."""
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return total.hexdigest()
