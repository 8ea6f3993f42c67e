"""Who works at which trial of a study, and what becomes of the trials of those that were killed."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState

from edgemtl.nas.evaluation import Evaluation, Turns, finished, open_storage, open_study, record, seen_keys
from edgemtl.nas.evaluation.storage import START
from edgemtl.nas.evaluation.trials import position_of
from edgemtl.nas.search import workers
from edgemtl.nas.search.loop import Worker, evaluate_all
from edgemtl.nas.search.strategies.linas import LinasSampler
from edgemtl.nas.search.strategies.nsga2 import Nsga2Sampler
from edgemtl.nas.search.strategies.random import RandomDesignSampler
from edgemtl.nas.search.strategies.tpe import TpeSampler
from edgemtl.nas.search.workers import SilenceWatch, begin, end_abandoned, working
from edgemtl.progress import silent
from edgemtl.spaces import Design, Space
from edgemtl.testing.landscape import PAIR, evaluate, problem, space

Unbroken = Callable[[str], list[tuple[int, str]]]
FORK = multiprocessing.get_context("fork")
EVALUATIONS, BATCH, GRACE_SECONDS, WAIT_SECONDS = 11, 4, 1.0, 300.0
SAMPLERS = {
    "linas": lambda task: LinasSampler(task, 0, BATCH, generations=3),
    "nsga2": lambda task: Nsga2Sampler(task, 0, BATCH),
    "random": lambda task: RandomDesignSampler(task, 0, BATCH),
    "tpe": lambda task: TpeSampler(task, 0, BATCH),
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return space(tmp_path_factory.mktemp("pair"), PAIR)


def shared(pair: Space, url: str, strategy: str = "random") -> optuna.Study:
    study = open_study("s", open_storage(Path("unused"), url))
    study.sampler = SAMPLERS[strategy](problem(pair))
    return study


def sqlite(folder: Path) -> str:
    return f"sqlite:///{folder / 'studies.db'}"


def journal(folder: Path) -> str:
    return f"journal://{folder / 'studies.journal'}"


def states(study: optuna.Study) -> list[TrialState]:
    return [trial.state for trial in study.get_trials(deepcopy=False)]


def position(study: optuna.Study, trial: optuna.Trial | None) -> int:
    assert trial is not None
    return position_of(study._storage.get_trial(trial._trial_id))


@pytest.mark.parametrize("where", [sqlite, journal])
def test_a_worker_takes_its_own_trials_over_and_leaves_those_of_others(
    pair: Space, tmp_path: Path, where: Callable[[Path], str]
) -> None:
    study = shared(pair, where(tmp_path))
    mine, others = begin(study, pair, "mine"), begin(study, pair, "others")
    end_abandoned(study, "mine")
    assert states(study) == [TrialState.FAIL, TrialState.RUNNING]
    again = begin(study, pair, "mine")
    assert (position(study, others), position(study, again)) == (1, 0)
    assert again.params == mine.params, "what a position gets does not depend on who asks when"
    assert seen_keys(study, pair) == {pair.design(trial.params).key for trial in (others, again)}


def test_a_trial_that_was_taken_for_abandoned_is_begun_again(pair: Space, tmp_path: Path) -> None:
    study = shared(pair, sqlite(tmp_path))

    class Sampler(RandomDesignSampler):
        calls = 0

        def next_design(self, study: optuna.Study, position: int) -> Design:
            self.calls += 1
            if self.calls == 1:
                end_abandoned(study, "mine")  # another process of that name begins at this moment
            return super().next_design(study, position)

    study.sampler = Sampler(problem(pair), 0, BATCH)
    begin(study, pair, "mine")
    assert states(study) == [TrialState.FAIL, TrialState.RUNNING]


def test_a_storage_that_fails_is_told_and_not_asked_for_ever(
    pair: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = shared(pair, sqlite(tmp_path))

    def create(*given: object) -> None:
        raise RuntimeError("the table schema is another one")

    monkeypatch.setattr(study._storage, "create_new_trial", create)
    with pytest.raises(RuntimeError, match="table schema"):
        begin(study, pair, "mine")


@pytest.mark.parametrize("where", [sqlite, journal])
def test_the_trial_of_a_silent_worker_is_taken_over_and_that_of_a_living_one_is_not(
    pair: Space, tmp_path: Path, where: Callable[[Path], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that goes on when the living one was heard, however late the machine lets it speak."""
    now = [0.0]
    monkeypatch.setattr(workers, "time", SimpleNamespace(monotonic=lambda: now[0]))
    study, watch = shared(pair, where(tmp_path)), SilenceWatch(grace_seconds=1.0)
    begin(study, pair, "killed")
    living = begin(study, pair, "living")
    assert living is not None
    watch.end_silent(study)
    assert states(study) == [TrialState.RUNNING] * 2, "nobody is silent for long at first sight"
    with working(study, living._trial_id, beat_seconds=0.05):
        for expected in (TrialState.RUNNING, TrialState.FAIL):
            wait_for_beat(study, living)
            now[0] += 0.6
            watch.end_silent(study)
            assert states(study) == [expected, TrialState.RUNNING]
    evaluation = evaluate(pair.design(living.params))
    record(living, evaluation)
    study.tell(living, list(problem(pair).objectives(evaluation)))
    assert len(finished(study)) == 1


def wait_for_beat(study: optuna.Study, trial: optuna.Trial) -> None:
    """Wait for the next sign of life of who works at a trial."""
    deadline = time.monotonic() + 120
    before = study._storage.get_trial(trial._trial_id).user_attrs.get("beat")
    while study._storage.get_trial(trial._trial_id).user_attrs.get("beat") == before:
        assert time.monotonic() < deadline, "it is silent"
        time.sleep(0.01)


class Slow:
    """Stands where a search has its evaluator: the landscape's scores, after a while.

    At its evaluation `kill_at` its process dies and sets `death`; without that number it waits for `death` first.
    """

    def __init__(self, seconds: float = 0.0, kill_at: int = 0, death: Event | None = None) -> None:
        self._seconds, self._kill_at, self._count, self._death = seconds, kill_at, 0, death
        self.turns, self.estimate = Turns(), None

    def evaluate(self, design: Design, *unused: object) -> Evaluation:
        self._count += 1
        if self._death is not None and not self._kill_at:
            assert self._death.wait(WAIT_SECONDS)
        if self._count == self._kill_at:
            if self._death is not None:
                self._death.set()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(self._seconds)
        return evaluate(design)


def work(
    pair: Space,
    url: str,
    strategy: str,
    name: str,
    evaluator: Slow,
    barrier: Barrier | None = None,
    grace_seconds: float = GRACE_SECONDS,
) -> None:
    """One worker of a study, as a search runs it, with little patience for silent ones."""
    workers.SilenceWatch.__init__.__defaults__ = (grace_seconds,)
    workers.working.__wrapped__.__defaults__ = (grace_seconds / 5,)  # type: ignore[attr-defined]
    study = shared(pair, url, strategy)
    if barrier is not None:
        barrier.wait(WAIT_SECONDS)
    task = problem(pair, ["70%FLOPs"])
    study.sampler = SAMPLERS[strategy](task)
    end_abandoned(study, name)
    evaluate_all(EVALUATIONS, task, evaluator, study, Worker(name, True), silent)  # type: ignore[arg-type]


def started(*workers: tuple[object, ...], grace_seconds: float = GRACE_SECONDS) -> list[int | None]:
    """Exit codes of processes that work at once."""
    barrier = FORK.Barrier(len(workers))
    processes: list[BaseProcess] = [
        FORK.Process(target=work, args=(*arguments, barrier, grace_seconds)) for arguments in workers
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(WAIT_SECONDS)
    return [process.exitcode for process in processes]


def killed_and_living(pair: Space, url: str, strategy: str) -> list[int | None]:
    """Exit codes of two workers, of which one dies in its second evaluation while the other is in its first."""
    death = FORK.Event()
    killed = (pair, url, strategy, "killed", Slow(kill_at=2, death=death))
    return started(killed, (pair, url, strategy, "living", Slow(death=death)))


def evaluated(pair: Space, url: str) -> list[tuple[int, str]]:
    """Position and design of everything that was evaluated."""
    return [(position_of(trial), trial.user_attrs["key"]) for trial in finished(shared(pair, url))]


@pytest.fixture(scope="module")
def unbroken(pair: Space, tmp_path_factory: pytest.TempPathFactory) -> Unbroken:
    """What one worker that nothing stops evaluates, by strategy."""

    @functools.cache
    def find(strategy: str) -> list[tuple[int, str]]:
        url = journal(tmp_path_factory.mktemp("alone"))
        work(pair, url, strategy, "alone", Slow())
        found = evaluated(pair, url)
        assert [position for position, _ in found] == list(range(EVALUATIONS))
        return found

    return find


@pytest.mark.parametrize("strategy", sorted(SAMPLERS))
def test_one_worker_that_is_killed_and_resumed_evaluates_what_it_would_have(
    pair: Space, tmp_path: Path, strategy: str, unbroken: Unbroken
) -> None:
    url, alone = journal(tmp_path), unbroken(strategy)
    assert started((pair, url, strategy, "one", Slow(kill_at=6))) == [-signal.SIGKILL]
    before = evaluated(pair, url)
    assert len(before) >= 5 and before == alone[: len(before)], "the current one alone is lost"
    assert started((pair, url, strategy, "one", Slow())) == [0]
    assert evaluated(pair, url) == alone


@pytest.mark.parametrize(
    ("where", "strategy"), [(journal, "linas"), (journal, "nsga2"), (sqlite, "tpe"), (sqlite, "random")]
)
def test_of_two_workers_one_is_killed_and_the_other_does_its_design(
    pair: Space, tmp_path: Path, where: Callable[[Path], str], strategy: str, unbroken: Unbroken
) -> None:
    """All together evaluate what one alone would, in whichever order."""
    url, alone = where(tmp_path), unbroken(strategy)
    assert killed_and_living(pair, url, strategy) == [-signal.SIGKILL, 0]
    assert evaluated(pair, url) == alone
    assert states(shared(pair, url)).count(TrialState.RUNNING) == 0


def test_four_workers_that_make_one_new_database_at_once_share_its_designs(
    pair: Space, tmp_path: Path, unbroken: Unbroken
) -> None:
    url, alone = sqlite(tmp_path), unbroken("linas")
    four = ((pair, url, "linas", str(number), Slow(0.02)) for number in range(4))
    assert started(*four, grace_seconds=WAIT_SECONDS) == [0] * 4, "nobody dies, nor is taken for dead"
    assert evaluated(pair, url) == alone
    assert not [path.name for path in tmp_path.iterdir() if path.is_file() and path.name != "studies.db"]


def test_the_command_that_starts_a_database_does(tmp_path: Path) -> None:
    """As it stands in the line on a database that cannot be reached, for who is not the system's own user of it."""
    pytest.importorskip("psycopg", reason="PostgreSQL needs psycopg: pip install 'edgemtl[postgresql]'")
    if None in [shutil.which(name) for name in ("initdb", "pg_ctl", "createdb")] or os.geteuid():
        pytest.skip("needs PostgreSQL's programs, and root to be another user: apt-get install postgresql")
    tmp_path.chmod(0o777)
    for parent in itertools.takewhile(lambda each: each != Path(tempfile.gettempdir()), tmp_path.parents):
        parent.chmod(0o755)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = str(one.getsockname()[1])
    given = {"user": "nobody", "cwd": tmp_path, "env": {**os.environ, "PGPORT": port, "HOME": str(tmp_path)}}
    try:
        subprocess.run(START, shell=True, check=True, timeout=300, stdout=subprocess.DEVNULL, **given)
        study = open_study("s", open_storage(Path("unused"), f"postgresql://nobody@localhost:{port}/studies"))
        assert study.study_name == "s"
    finally:
        subprocess.run(["pg_ctl", "-D", "pg", "-m", "immediate", "stop"], check=False, timeout=60, **given)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a database of PostgreSQL's own on loopback, in a temporary folder."""
    pytest.importorskip("psycopg", reason="PostgreSQL needs psycopg: pip install 'edgemtl[postgresql]'")
    programs = [shutil.which(name) for name in ("initdb", "postgres")]
    if None in programs:
        pytest.skip("no initdb and postgres here: apt-get install postgresql")
    folder, user = tmp_path_factory.mktemp("server"), "postgres" if os.geteuid() == 0 else None
    if user:  # which refuses to be started by root
        folder.chmod(0o755)
        for parent in itertools.takewhile(lambda each: each != Path(tempfile.gettempdir()), folder.parents):
            parent.chmod(0o755)
        shutil.chown(folder, user)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]

    def command(program: object, *arguments: str) -> Sequence[str]:
        return [str(program), "-D", str(folder / "data"), *arguments]

    initialised = command(programs[0], "-U", "edgemtl", "-A", "trust", "--no-sync")
    subprocess.run(initialised, check=True, user=user, cwd=folder, stdout=subprocess.DEVNULL, timeout=300)
    with (folder / "log").open("w") as log:
        running = subprocess.Popen(
            command(programs[1], "-h", "127.0.0.1", "-p", str(port), "-k", str(folder), "-F"),
            user=user, cwd=folder, stdout=log, stderr=log,
        )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while "ready to accept connections" not in (folder / "log").read_text():
            assert running.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.1)
        yield f"postgresql://edgemtl@127.0.0.1:{port}/postgres"
    finally:
        running.send_signal(signal.SIGINT)  # does not wait for who is connected
        running.wait(60)


def test_workers_share_a_postgresql_database(pair: Space, server: str, unbroken: Unbroken) -> None:
    alone = unbroken("linas")
    assert killed_and_living(pair, server, "linas") == [-signal.SIGKILL, 0]
    assert evaluated(pair, server) == alone
