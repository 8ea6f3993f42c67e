"""Evaluations that a study is given before its search, wherever a kill stops that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from edgemtl.nas.evaluation import Evaluation, finished, open_storage, open_study, position_of
from edgemtl.nas.search import evaluations_in, is_seeded, take_known, wanted_in
from edgemtl.spaces import Space
from edgemtl.testing.landscape import TINY, evaluate, problem, space

KNOWN = 4


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return space(tmp_path_factory.mktemp("tiny"), text=TINY)


@pytest.fixture(scope="module")
def known(tiny: Space) -> list[Evaluation]:
    """Evaluations of four designs."""
    values = [{**tiny.largest(), choice.name: choice.options[0]} for choice in tiny.choices]
    designs = {design.key: design for design in map(tiny.design, values)}
    return [evaluate(design) for design in list(designs.values())[:KNOWN]]


def left_by_kills(journal: Path) -> Iterator[optuna.Study]:
    """The study that each kill leaves of one: so many whole lines of its journal, or half a line more."""
    lines = journal.read_bytes().splitlines(keepends=True)
    whole = [b"".join(lines[:count]) for count in range(len(lines) + 1)]
    halves = [before + line[: len(line) // 2] for before, line in zip(whole, lines, strict=False)]
    for number, content in enumerate([*whole, *halves]):
        killed = journal.with_name(f"{number}.journal")
        killed.write_bytes(content)
        yield open_study("search", open_storage(killed))


def test_a_kill_at_any_moment_loses_none_of_what_is_known(tiny: Space, known: list[Evaluation], tmp_path: Path) -> None:
    task, names, journal = problem(tiny), {each.design.key for each in known}, tmp_path / "study.journal"
    take_known(open_study("search", open_storage(journal)), task, known)
    halfway = set[int]()
    for study in left_by_kills(journal):
        if not is_seeded(study):
            halfway.add(len(finished(study)))
        take_known(study, task, known[::-1])  # measured again, they may come in another order
        assert [position_of(trial) for trial in finished(study)] == [*range(KNOWN)]
        assert {each.design.key for each in evaluations_in(study, tiny)} == names
        assert is_seeded(study) and wanted_in(study, 3) == KNOWN + 3
    assert len(names) == KNOWN and halfway == {*range(KNOWN + 1)}


def test_designs_that_only_one_of_two_measurements_ended_with_are_all_there(
    tiny: Space, known: list[Evaluation], tmp_path: Path
) -> None:
    task, journal = problem(tiny), tmp_path / "study.journal"
    take_known(open_study("search", open_storage(journal)), task, known[:2])
    study = next(each for each in left_by_kills(journal) if len(finished(each)) == 1)
    take_known(study, task, known[2:])
    assert evaluations_in(study, tiny) == [known[0], *known[2:]]
    assert wanted_in(study, 0) == KNOWN - 1


def test_what_is_known_is_given_once_and_each_design_once(tiny: Space, known: list[Evaluation], tmp_path: Path) -> None:
    study, task = open_study("search", open_storage(tmp_path / "study.journal")), problem(tiny)
    for given in ([*known[:2], known[0]], known):
        take_known(study, task, given)
        assert wanted_in(study, 0) == len(finished(study)) == 2
