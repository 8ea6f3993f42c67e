"""Ctrl-C and SIGTERM at every moment of a verb: what it says is true, and `--resume` goes on."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from chain import environment, make_workplace

from edgemtl.cli import main
from edgemtl.files.claim import claim
from edgemtl.nas.evaluation import Evaluator
from edgemtl.train import TrainingLoop
from edgemtl.train import trainer as _trainer

TINY = ("--space", "tiny", "--data", "data")
TRAIN = ("train", *TINY, "--steps", "6", "--batch", "4", "--sizes", "1", "--out")
SEARCH = ("search", *TINY, "--supernet", "supernet/supernet.safetensors", "--target", "tensorrt-rtx", "--out")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stops")
    make_workplace(folder)
    return folder


@pytest.fixture(autouse=True)
def workplace(made: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(made)
    monkeypatch.setenv("EDGEMTL_CACHE", environment(made)["EDGEMTL_CACHE"])
    if not Path("supernet").exists():
        assert in_child(*TRAIN, "supernet")[0] == 0
    yield made


def in_child(*words: str, change: Callable[[], None] = lambda: None) -> tuple[int, list[str]]:
    """Status and lines of the command in a forked process, in which `change` decides when it is stopped."""
    child = os.fork()
    if child == 0:
        log = os.open("log.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
        sys.argv = ["edgemtl", *words]
        try:
            change()
            os._exit(main(words))
        finally:
            os._exit(70)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status, Path("log.txt").read_text().splitlines()


def at_call(owner: object, method: str, number: signal.Signals, count: int = 1, times: int = 1) -> Callable[[], None]:
    """A change that sends a signal in the `count`th call of a method, and again in the next ones, `times` in all."""

    def change() -> None:
        whole, calls = getattr(owner, method), []

        def stopped(self: object, *args: object, **more: object) -> object:
            calls.append(1)
            if count <= len(calls) < count + times:
                signal.raise_signal(number)
            return whole(self, *args, **more)

        setattr(owner, method, stopped)

    return change


def resumed(line: str) -> int:
    """Status of the command that the last line of an interrupted one gives."""
    assert line.startswith("interrupted: ")
    words = shlex.split(line[line.index("edgemtl ") :])
    return in_child(*words[1:])[0]


@pytest.mark.parametrize(
    ("number", "owner", "method", "count"),
    [
        (signal.SIGTERM, TrainingLoop, "_one_step", 1),
        (signal.SIGINT, TrainingLoop, "_one_step", 4),
        (signal.SIGINT, _trainer, "_score", 1),
    ],
)
def test_training_that_is_stopped_goes_on(number: signal.Signals, owner: object, method: str, count: int) -> None:
    """Before the first checkpoint that a minute brings, between two, and while the weights are scored."""
    out = Path(f"train-{number.name}-{method}-{count}")
    status, lines = in_child(*TRAIN, str(out), change=at_call(owner, method, number, count))
    assert status == 130
    assert lines[-1].startswith(f"interrupted: a checkpoint is kept in {out}; go on with: edgemtl train ")
    assert (out / "checkpoint.safetensors").is_file()
    assert not list(out.glob(".*"))
    assert resumed(lines[-1]) == 0
    whole = [(Path(name) / "supernet.safetensors").read_bytes()[-10_000:] for name in ("supernet", str(out))]
    assert whole[0] == whole[1]


def test_training_that_had_not_begun_says_so() -> None:
    def change() -> None:
        TrainingLoop._restore = lambda self: signal.raise_signal(signal.SIGTERM)  # type: ignore[method-assign,assignment,return-value]

    status, lines = in_child(*TRAIN, "early", change=change)
    assert (status, lines[-1]) == (130, "interrupted: nothing was begun: call the same command again")
    assert not Path("early").exists()


def test_a_search_says_what_it_finishes_and_a_second_ctrl_c_ends_it() -> None:
    once = at_call(Evaluator, "evaluate", signal.SIGINT, count=3)
    status, lines = in_child(*SEARCH, "once", "--evaluations", "4", "--finetune", "0", change=once)
    assert status == 130
    (stopping,) = (line for line in lines if line.startswith("stopping: the best of 2 designs so far is refined"))
    assert "another Ctrl-C ends at once" in stopping
    assert Path("once/result.json").is_file()

    def twice() -> None:
        once()
        at_call(Evaluator, "score", signal.SIGINT)()

    status, lines = in_child(*SEARCH, "twice", "--evaluations", "4", "--finetune", "0", change=twice)
    assert status == 130
    assert lines[-1].startswith("interrupted: what was evaluated is kept in twice; go on with: edgemtl search ")
    there = sorted(path.name for path in Path("twice").iterdir())
    assert there == ["config.json", "measurements.json", "study.journal"]
    assert resumed(lines[-1]) == 0
    assert Path("twice/result.json").is_file()


def test_a_search_that_had_not_begun_says_so() -> None:
    status, lines = in_child(*SEARCH, "early", change=at_call(Evaluator, "check_labels", signal.SIGTERM))
    assert (status, lines[-1]) == (130, "interrupted: nothing was begun: call the same command again")
    assert not Path("early").exists()


@pytest.mark.parametrize("words", [(*TRAIN, "taken"), (*SEARCH, "taken"), (*SEARCH, "taken", "--resume")])
def test_a_folder_in_use_is_one_line(words: tuple[str, ...]) -> None:
    with claim(Path("taken"), "prune"):
        status, lines = in_child(*words)
    assert status == 1
    (line,) = lines
    assert line.startswith(f"error: taken is in use by edgemtl prune, process {os.getpid()} on ")
    assert not Path("taken").exists()
