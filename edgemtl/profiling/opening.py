"""Time and memory that opening a model costs, measured in a fresh process.

`measure_opening` starts that process, which runs `subprocess_main`: one JSON request on stdin, one JSON line back.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgemtl.errors import EdgeMTLError, UserError
from edgemtl.files.onnx import read_onnx
from edgemtl.profiling.fresh import measure_first_run
from edgemtl.profiling.inputs import InputChoice
from edgemtl.profiling.schema import Opening
from edgemtl.profiling.subjects import ProfiledModel, open_subject

__all__ = ["measure_opening", "open_apart", "run_in_subprocess", "subprocess_main"]

TIMEOUT_S = 600
REFUSED = 4
"""Exit status of the process for a mistake that the user can fix."""


@dataclass(frozen=True)
class Opened:
    """Answer of the subprocess: costs, the inputs that the model runs on, and what was assumed of them."""

    opening: Opening
    choice: InputChoice
    notes: list[str]


def measure_opening(path: Path, target: str | None = None, threads: int = 0) -> Opening:
    """Open `path` and run all tasks once in a process of its own; raises `UserError` where that process fails."""
    return open_apart(path, target, threads, InputChoice()).opening


def open_apart(path: Path, target: str | None, threads: int, choice: InputChoice) -> Opened:
    """As `measure_opening`, with the inputs that `path` runs on; a crash of the runtime ends that process only."""
    if path.is_file():
        read_onnx(path)  # here, where its time and memory are not those of opening
    answer = json.loads(run_in_subprocess(subprocess_main, path, target, threads, choice))
    return Opened(Opening.model_validate(answer["opening"]), _choice(answer["choice"]), answer["notes"])


def _choice(content: dict[str, Any]) -> InputChoice:
    return InputChoice({name: tuple(sizes) for name, sizes in content["shapes"].items()}, content["integers"])


def run_in_subprocess(
    question: Callable[[], None], path: Path, target: str | None, threads: int, choice: InputChoice | None = None
) -> str:
    """Run `question`, a function of this package, on `path` in a subprocess; returns the last line that it prints."""
    chosen = None if choice is None else asdict(choice)
    request = json.dumps({"path": str(path), "target": target, "threads": threads, "choice": chosen})
    root = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
    module, name = question.__module__, question.__name__
    ends = f"from edgemtl.signals import end_with_parent; end_with_parent({os.getpid()})"
    command = [sys.executable, "-P", "-c", f"{ends}; from {module} import {name}; {name}()"]
    try:
        done = subprocess.run(
            command,
            input=request,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            env={**os.environ, "PYTHONPATH": paths},
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"opening {path} took longer than {TIMEOUT_S} s and was stopped: profile a smaller model"
        ) from error
    last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    if done.returncode == REFUSED:
        raise UserError(last)
    if done.returncode < 0:
        raise UserError(f"{path} crashes its runtime (signal {-done.returncode}): it is damaged, export it again")
    if done.returncode != 0:
        raise UserError(f"opening {path} in a process of its own failed: {last}")
    return done.stdout.strip().splitlines()[-1]


def subprocess_main() -> None:
    """Main function of the subprocess; it exits with `REFUSED`, the reason on stderr's last line, if opening fails."""
    try:
        request = json.load(sys.stdin)
        choice = _choice(request["choice"])
        opened = _open_and_run(Path(request["path"]), request["target"], request["threads"], choice)
    except EdgeMTLError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(REFUSED)
    content = {"opening": opened.opening.model_dump(), "choice": asdict(opened.choice), "notes": opened.notes}
    sys.stdout.write(json.dumps(content) + "\n")


def _open_and_run(path: Path, target: str | None, threads: int, choice: InputChoice) -> Opened:
    notes: list[str] = []

    def settle(subject: ProfiledModel) -> float:
        assumed, first_run_ms = subject.settle()
        notes.extend(assumed)
        return first_run_ms

    subject, costs = measure_first_run(lambda: open_subject(path, target, threads, choice), settle)
    return Opened(Opening.model_validate(costs), subject.choice, notes)
