from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from small import small_space

from edgemtl.cli import main

TRAIN = ("train", "--space", "small.yaml", "--data", "scenes", "--size", "64x64", "--images", "16", "--sizes", "1")


@pytest.fixture(autouse=True)
def small(tmp_path: Path) -> None:
    """The space that is trained."""
    small_space(tmp_path)


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


AGAIN = """
import torch
from edgemtl.train import worker_processes
from edgemtl.train.processes import join_group

def work() -> None:
    print(int(join_group().reduce(torch.ones(()), "sum")), flush=True)

if __name__ == "__main__":
    for processes in (1, 2, 2, 1):
        with worker_processes(work, processes):
            work()
"""


def test_one_training_after_another_has_processes_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "again.py").write_text(AGAIN)
    bare = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    command = [sys.executable, "again.py"]
    done = subprocess.run(command, cwd=tmp_path, env=bare, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "OMP_NUM_THREADS" not in done.stderr, "each process has its share of the threads, and no warning is shown"
    sums = "".join(done.stdout.split())  # processes may print into each other's lines
    assert (sums[0], sums[-1]) == ("1", "1")
    assert sums.count("2") >= 2, "a helper may be ended before it prints"


FAILING = """
import torch
from edgemtl.errors import UserError
from edgemtl.train import worker_processes
from edgemtl.train.processes import join_group

def work() -> None:
    join_group()
    raise UserError("photo 3 cannot be read")

if __name__ == "__main__":
    try:
        with worker_processes(work, 2):
            join_group().reduce(torch.ones(()), "sum")
    except UserError as error:
        print(error)
"""


def test_a_helper_that_cannot_use_its_input_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILING)
    done = run([sys.executable, "failing.py"], tmp_path)
    assert "1 of 2 training processes ended (status 1)" in done.stdout
    assert "photo 3 cannot be read" in done.stderr.splitlines() and "Traceback" not in done.stderr


UNGUARDED = """
from edgemtl.errors import UserError
from edgemtl.train import worker_processes

def work() -> None:
    pass

try:
    with worker_processes(work, 2):
        pass
except UserError as error:
    print(error)
"""


def test_a_helper_that_ends_as_it_starts_is_not_waited_for(tmp_path: Path) -> None:
    """A script is run again in each helper, which may start none of its own; the others would wait for half an hour."""
    (tmp_path / "unguarded.py").write_text(UNGUARDED)
    done = run([sys.executable, "unguarded.py"], tmp_path)
    assert "a training process ended as it started (status 1)" in done.stdout
    assert "stands under `if __name__ == '__main__':`" in done.stdout


def children(parent: int) -> list[int]:
    """Training helpers of a process, by /proc: those that multiprocessing spawned to run what it was given."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            words = (folder / "cmdline").read_bytes().decode()
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(status[1]) == parent and "spawn_main" in words:
                found.append(int(folder.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds the helper in /proc")
def test_a_helper_that_dies_ends_the_training_with_one_line(tmp_path: Path) -> None:
    words = (*TRAIN, "--steps", "4000", "--batch", "2", "--processes", "2", "--out", "two")
    log = tmp_path / "two/train.jsonl"
    with subprocess.Popen(
        [sys.executable, "-m", "edgemtl", *words],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "2"},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        deadline = time.monotonic() + 240
        while not log.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.2)
        (helper,) = children(process.pid)
        os.kill(helper, signal.SIGKILL)
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1, stderr
    assert "error: 1 of 2 training processes ended (status -9)" in stderr
    assert "--resume" in stderr


def test_a_process_too_few_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main((*TRAIN, "--processes", "0")) == 2
    assert "--processes" in capsys.readouterr().err


SCORED_OFTEN = """\
import sys

from edgemtl.cli import main
from edgemtl.train import interim

if __name__ == "__main__":
    interim.INTERIM_SECONDS, interim.INTERIM_SHARE = 0.0, 1e9
    sys.exit(main(sys.argv[1:]))
"""


def test_two_processes_train_one_supernet_and_one_scores_on_the_way_while_the_other_goes_on(tmp_path: Path) -> None:
    (tmp_path / "scored_often.py").write_text(SCORED_OFTEN)
    words = [*TRAIN, "--steps", "41", "--batch", "2", "--largest-steps", "1", "--processes", "2", "--out", "two"]
    done = run([sys.executable, "scored_often.py", *words], tmp_path)
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in (tmp_path / "two/train.jsonl").read_text().splitlines()]
    assert [(line["step"], bool(line["validation"])) for line in lines] == [(20, True), (40, True), (41, False)]
    summary = json.loads((tmp_path / "two/training.json").read_text())
    assert summary["processes"] == 2 and "--processes 2" in summary["command"]


def test_processes_of_a_launcher_train_one_supernet_in_one_folder(tmp_path: Path) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "edgemtl"]
    words = [*TRAIN, "--steps", "2", "--batch", "2", "--out", "two"]
    done = run([*launcher, *words], tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "two/training.json").read_text())["processes"] == 2
    assert done.stdout.count("written: ") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--processes", "2", "--out", "one"], "--processes 2: a launcher has started 3 already: leave it out"),
        (["--run", "runs/first", "--out", "one"], "leave the launcher out and give --processes"),
        ([], "--out is wanted under a launcher"),
    ],
)
def test_what_processes_of_a_launcher_cannot_do_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    assert main(["train", *words]) == 1
    assert message in capsys.readouterr().err
