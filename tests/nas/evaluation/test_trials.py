from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from dataclasses import replace
from multiprocessing.synchronize import Event
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from refusals import refused

from edgemtl.errors import UserError
from edgemtl.nas.evaluation import Stopped, storage
from edgemtl.nas.evaluation.storage import _KernelLock, hide_password, open_storage
from edgemtl.nas.evaluation.trials import design_of, evaluation_of, finished, position, record, space_distributions
from edgemtl.spaces import Space
from edgemtl.testing.landscape import PAIR, evaluate, problem, space


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return space(tmp_path_factory.mktemp("pair"), PAIR)


def tell(pair: Space, study: optuna.Study, count: int) -> None:
    task = problem(pair)
    for _ in range(count):
        trial = study.ask(space_distributions(pair))
        evaluation = evaluate(pair.design(trial.params))
        record(trial, evaluation)
        study.tell(trial, list(task.objectives(evaluation)))


def open_study(name: str, journal: Path, url: str | None) -> optuna.Study:
    return storage.open_study(name, open_storage(journal, url))


def complete(study: optuna.Study) -> int:
    return len(study.get_trials(states=(TrialState.COMPLETE,)))


def test_an_evaluation_reads_back_as_it_was(pair: Space, tmp_path: Path) -> None:
    tell(pair, open_study("search", tmp_path / "run" / "study.journal", None), 3)
    trials = open_study("search", tmp_path / "run" / "study.journal", None).trials
    for trial in trials:
        found = evaluation_of(trial, pair)
        assert found == evaluate(found.design)
        assert found.design == design_of(trial.params, pair)
        assert trial.user_attrs["key"] == found.design.key


def test_an_evaluation_that_was_stopped_reads_back_so(pair: Space, tmp_path: Path) -> None:
    study = open_study("search", tmp_path / "study.journal", None)
    trial = study.ask(space_distributions(pair))
    stopped = replace(evaluate(pair.design(trial.params)), stopped=Stopped("depth=2%", 24, 64))
    record(trial, stopped)
    study.tell(trial, [0.0, 0.0])
    (read,) = open_study("search", tmp_path / "study.journal", None).trials
    assert evaluation_of(read, pair) == stopped
    read.set_user_attr("stopped", None)
    with pytest.raises(UserError, match="is damaged"):
        evaluation_of(read, pair)


def test_options_keep_their_types_in_the_file(pair: Space, tmp_path: Path) -> None:
    """An int stays one: a width of 16 is not the text "16"."""
    tell(pair, open_study("search", tmp_path / "study.journal", None), 1)
    (trial,) = open_study("search", tmp_path / "study.journal", None).trials
    kinds = {choice.name: type(choice.options[0]) for choice in pair.choices}
    assert {name: type(option) for name, option in trial.params.items()} == kinds


@pytest.mark.parametrize("cut", [1, 7, 60])
def test_a_last_line_that_was_cut_short_is_dropped(pair: Space, tmp_path: Path, cut: int) -> None:
    """What a full disk or a lost power leaves: the study goes on, before and after."""
    journal = tmp_path / "study.journal"
    tell(pair, open_study("search", journal, None), 3)
    journal.write_bytes(journal.read_bytes()[:-cut])
    study = open_study("search", journal, None)
    assert complete(study) in (2, 3)
    tell(pair, study, 2)
    again = open_study("search", journal, None)
    assert complete(again) == complete(study) >= 4
    assert all(json.loads(line) for line in journal.read_text().splitlines())


@pytest.mark.parametrize("content", [b"<html>\n</html>\n", b"[1]\n", b'{"op_code": 99}\n', b"\xff\xfe\n\n"])
def test_another_file_in_its_place_is_told(tmp_path: Path, content: bytes) -> None:
    journal = tmp_path / "study.journal"
    journal.write_bytes(content)
    with pytest.raises(UserError) as error:
        open_study("search", journal, None)
    assert f"the study in {journal} cannot be opened" in str(error.value)
    assert "begin again with another --out" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nonsense", "--storage 'nonsense' is of no kind that is known: give journal:///PATH"),
        ("oracle9://a/b", "or postgresql://USER@HOST/DATABASE"),
        ("journal://", "is of no kind that is known"),
        ("mongo://me:secret@host/x", "--storage 'mongo://me:***@host/x' is of no kind that is known"),
        ("sqlite:////nowhere/at/all/x.db", "the database sqlite:////nowhere/at/all/x.db in --storage cannot be opened"),
        ("journal:///nowhere/at/all/x", "there is no folder /nowhere/at/all; create it where all workers see it"),
        ("sqlite+nodriver:///x.db", "in --storage cannot be opened"),
    ],
)
def test_a_storage_that_cannot_be_used_is_one_line(tmp_path: Path, url: str, expected: str) -> None:
    line = refused(lambda: open_storage(tmp_path / "study.journal", url))
    assert expected in line
    assert "secret" not in line


def test_an_unreachable_database_is_one_line_which_says_how_to_start_one(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    line = refused(lambda: open_storage(tmp_path / "j", "postgresql://me:secret@127.0.0.1:9/studies"))
    assert "the database postgresql://me:***@127.0.0.1:9/studies in --storage cannot be reached" in line
    assert "start one with `initdb -D pg && pg_ctl -D pg " in line
    assert "` and give postgresql://localhost/studies, or give journal:///PATH" in line


def test_a_missing_driver_is_one_line_which_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    line = refused(lambda: open_storage(tmp_path / "j", "postgresql://me@127.0.0.1:9/studies"))
    assert line == (
        "--storage with PostgreSQL needs the package psycopg, which is not installed: pip install 'edgemtl[postgresql]'"
    )


@pytest.mark.parametrize("written", ["journal://{}", "{}"])
def test_a_journal_is_shared_by_its_url_or_its_path(pair: Space, tmp_path: Path, written: str) -> None:
    url = written.format(tmp_path / "shared.journal")
    tell(pair, open_study("first", tmp_path / "own", url), 2)
    assert complete(open_study("first", tmp_path / "own", url)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["shared.journal"]


def test_passwords_are_hidden() -> None:
    assert hide_password("a sqlite:///x b://u:p@h/d c://u@h:5/d") == "a sqlite:///x b://u:***@h/d c://u@h:5/d"
    given = "postgresql://h/d?user=u&password=p&sslmode=require"
    assert hide_password(f"'{given}'") == f"'{given.replace('=p&', '=***&')}'"
    assert hide_password("'postgresql://h/d?password=p' --out x") == "'postgresql://h/d?password=***' --out x"


def test_a_position_that_was_given_up_is_taken_by_the_next(pair: Space, tmp_path: Path) -> None:
    study = open_study("search", tmp_path / "study.journal", None)
    trials = [study.ask(space_distributions(pair)) for _ in range(4)]
    positions = [position(study, study._storage.get_trial(trial._trial_id)) for trial in reversed(trials)]
    assert positions == [3, 2, 1, 0], "each leaves the lower ones to those that asked before"
    study.tell(trials[1], state=TrialState.FAIL)
    later = study.ask(space_distributions(pair))
    assert position(study, study._storage.get_trial(later._trial_id)) == 1
    for trial in (trials[3], later, trials[0]):
        evaluation = evaluate(pair.design(trial.params))
        record(trial, evaluation)
        study.tell(trial, list(problem(pair).objectives(evaluation)))
    assert [trial.number for trial in finished(study)] == [0, later.number, 3]


def test_a_database_serves_many_studies(pair: Space, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    tell(pair, open_study("first", tmp_path / "a", url), 2)
    assert complete(open_study("first", tmp_path / "b", url)) == 2
    assert complete(open_study("second", tmp_path / "a", url)) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["studies.db"]


def hold(journal: Path, ready: Event) -> None:
    _KernelLock(journal).acquire()
    ready.set()
    time.sleep(600)


def test_a_process_that_was_killed_while_it_wrote_locks_nobody_out(pair: Space, tmp_path: Path) -> None:
    journal = tmp_path / "study.journal"
    tell(pair, open_study("search", journal, None), 1)
    fork = multiprocessing.get_context("fork")
    ready = fork.Event()
    holder = fork.Process(target=hold, args=(journal, ready))
    holder.start()
    try:
        assert ready.wait(60)
    finally:
        holder.kill()
        holder.join()
    started = time.monotonic()
    assert complete(open_study("search", journal, None)) == 1
    assert time.monotonic() - started < 10
    assert [path.name for path in tmp_path.iterdir()] == ["study.journal"]


@pytest.mark.parametrize(
    ("old", "new"),
    [('"metrics":{', '"metrics":{"x":{},'), ('"key":"', '"key":"0'), ('"sha256":"', '"sha256":"0')],
)
def test_an_evaluation_that_was_changed_is_told(pair: Space, tmp_path: Path, old: str, new: str) -> None:
    journal = tmp_path / "study.journal"
    tell(pair, open_study("search", journal, None), 1)
    assert old in journal.read_text()
    journal.write_text(journal.read_text().replace(old, new))
    with pytest.raises(UserError, match="trial 0 of the study is damaged"):
        evaluation_of(open_study("search", journal, None).trials[0], pair)


def test_a_journal_that_is_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "study.journal")
    with pytest.raises(UserError, match="it is a pipe"):
        open_study("search", tmp_path / "study.journal", None)
