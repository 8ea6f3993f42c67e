"""Runs that several benchmarks start from: searched once by the command line, kept under `runs/`, resumable."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from _common import say

from edgemtl.data import open_source
from edgemtl.devices import Device
from edgemtl.environment import environment
from edgemtl.errors import UserError
from edgemtl.files.seals import sha256
from edgemtl.files.share import find_shared
from edgemtl.models import MultiTaskNet, Supernet, TaskNet, load_supernet
from edgemtl.nas.evaluation import Candidate, Evaluator, Sensitivity, find_sensitivity, measure_into_run
from edgemtl.nas.runs import RunFolder
from edgemtl.profiling import Call, Samples, compare
from edgemtl.runtime import Session, open_engine
from edgemtl.spaces import Design, Space, load_space
from edgemtl.targets import ExportTarget, find_target, measurer_of

ROUNDS, BURST = 4, 10
SIZE = (192, 256)
ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "runs" / environment()["cpu"]["class"]
"""Where benchmarks keep their runs: what is chosen on one class of processor is not what is right on another."""


def edgemtl(*arguments: str, capture: bool = False, cache: Path | None = None) -> str:
    """Run the command line as a user would, with a cache folder of its own where one is given; raises on a failure."""
    say("$ edgemtl " + " ".join(arguments))
    done = subprocess.run(
        [sys.executable, "-m", "edgemtl", *arguments],
        check=True,
        text=True,
        stdout=subprocess.PIPE if capture else sys.stderr,
        env={**os.environ, **({"EDGEMTL_CACHE": str(cache)} if cache else {})},
    )
    return done.stdout or ""


def searched(name: str, *arguments: str, finetuned: bool = False) -> RunFolder:
    """The run `runs/CLASS/NAME`, made (or finished) by `edgemtl search`.

    Its nets have the supernet's weights, or are `finetuned` by the search's default.

    One of an earlier supernet or of other data is begun anew.
    """
    path = RUNS / name
    clear_outdated(path)
    resume = ["--resume"] if (path / "config.json").is_file() else []
    finetune = [] if finetuned else ["--finetune", "0"]
    edgemtl("search", *arguments, *finetune, "--out", str(path), *resume)
    return RunFolder(path)


def clear_outdated(run: Path) -> None:
    """Remove a run of an earlier supernet or of other data, and with it the runs `NAME-...` that were made from it."""
    if (run / "config.json").is_file() and not is_current(RunFolder(run)):
        say(f"{run} is of an earlier supernet, or of other data: it is begun anew")
        for old in (run, *run.parent.glob(f"{run.name}-*")):
            shutil.rmtree(old)


def is_current(run: RunFolder) -> bool:
    """Whether a run can be read, and its space, its data and its supernet are those of today."""
    try:
        config = run.config()
        run.source(), run.space()
    except UserError:
        return False
    return config.supernet_sha256 is None or config.supernet_sha256 == supernet_hash(config.space)


def tuned(run: RunFolder, *recipe: str) -> RunFolder:
    """The run's best design trained further by `edgemtl train --run`, with a process per core; once, resumable."""
    path = run.path.with_name(f"{run.path.name}-tuned")
    resume = ["--resume"] if (path / "config.json").is_file() else []
    how = ["--batch", "8", "--processes", str(os.cpu_count() or 1)]
    edgemtl("train", "--run", str(run.path), *recipe, *how, "--out", str(path), *resume)
    return RunFolder(path)


def size_of(text: str) -> tuple[int, int]:
    """An input size (H, W), as HEIGHTxWIDTH.

    >>> size_of("96x128")
    (96, 128)
    """
    height, _, width = text.partition("x")
    return int(height), int(width)


def scenes_supernet(name: str = "cnn", size: tuple[int, int] = SIZE) -> tuple[Space, Supernet]:
    """A space and its shipped supernet."""
    space = load_space(name, open_source("scenes", size).tasks, size)
    supernet = Supernet.of(space)
    load_supernet(supernet, shipped_supernet(name), space.fingerprint)
    return space, supernet


def scenes_evaluator(
    target: str, name: str = "cnn", size: tuple[int, int] | None = None, device: Device | None = None
) -> tuple[Space, Evaluator]:
    """A space with its shipped supernet, and what scores its designs for a target on a device (None: here)."""
    size = size or SIZE
    source = open_source("scenes", size)
    space, supernet = scenes_supernet(name, size)
    found = find_target(target, device)
    evaluator = Evaluator(source, found, measurer_of(found), [""], supernet=supernet)
    return space.for_target(found.traits), evaluator


def scenes_sensitivity() -> Sensitivity:
    """The map that ships with the default space's supernet; where none does it is measured, once."""
    path, run = shipped_supernet("cnn"), RUNS / "sensitivity"
    cache_key = {"supernet_sha256": supernet_hash("cnn"), "data_fingerprint": open_source("scenes", SIZE).fingerprint}
    kept_map = find_sensitivity(path, run, cache_key)
    if kept_map is not None:
        return kept_map
    space, evaluator = scenes_evaluator("onnxruntime")

    def score(design: Design) -> dict[str, dict[str, float]]:
        return evaluator.simulated(evaluator.candidate(design))

    say("the supernet has no sensitivity map beside it: it is measured")
    return measure_into_run(run, cache_key, space, score, score(space.largest()), lambda news: say(f"{news.text}"))


def supernet_hash(space: str) -> str:
    """SHA-256 of a space's shipped supernet."""
    return sha256(shipped_supernet(space))


def shipped_supernet(space: str) -> Path:
    """The file of a space's shipped supernet."""
    path = find_shared("nas/supernets", f"{space}-scenes.safetensors")
    if path is None:
        sys.exit(f"the supernet nas/supernets/{space}-scenes.safetensors is missing")
    return path


def drawn(opens: Callable[[ExitStack], Mapping[str, Call]], engines: int) -> dict[str, Samples]:
    """Latencies of several calls in turns, pooled over `engines` engines of each, which `opens` opens anew.

    Two engines of one file differ in speed for as long as they live.
    """
    pooled: dict[str, list[float]] = defaultdict(list)
    for _ in range(engines):
        with ExitStack() as stack:
            for name, samples in compare(opens(stack), ROUNDS, burst=BURST).items():
                pooled[name] += samples.samples_ms
    return {name: Samples(tuple(values), 0, BURST) for name, values in pooled.items()}


def kept(run: RunFolder) -> dict[str, Candidate]:
    """Every design that a run would export: all but its baseline."""
    return {name: run.load(name) for name in run.names() if name != "baseline"}


@contextmanager
def built(net: MultiTaskNet, target: ExportTarget, engine: str) -> Iterator[Path]:
    """The folder of an engine."""
    with tempfile.TemporaryDirectory() as scratch:
        target.build(net, {"engine": engine}, None, Path(scratch))
        yield Path(scratch)


def opened(
    stack: ExitStack, net: TaskNet, target: ExportTarget, engine: str, modes: Sequence[Sequence[str]]
) -> Session:
    """An engine, open until the stack closes, ready for `modes`."""
    folder = stack.enter_context(built(net, target, engine))
    return stack.enter_context(closing(open_engine(folder, modes=modes)))
