from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import workers
from workers import ONE, TWO, Searching, all_timed

from edgemtl.cli.search import search


class Begun(Exception):
    """Raised in place of a process."""


@pytest.mark.parametrize("count", [1, 2])
def test_its_searches_are_commands_that_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int) -> None:
    commands: list[tuple[list[str], str]] = []

    def begin(command: list[str], env: dict[str, str], **_: Any) -> None:
        commands.append((command, env["OMP_NUM_THREADS"]))
        raise Begun

    monkeypatch.setattr(workers.subprocess, "Popen", begin)
    with pytest.raises(Begun):
        workers.timed(Searching(count, 3, 4), tmp_path)
    (((_, module, package, verb, *words), threads),) = commands
    assert (module, package, verb, threads) == ("-m", "edgemtl", "search", "3")
    given = search.make_context("search", words).params
    assert (given["workers"], given["evaluations"], given["finetune"]) == (count, 4, 0)


def test_it_goes_on_with_the_search_that_it_was_stopped_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    searches, order, file = {ONE: Searching(1, 1, 4), TWO: Searching(2, 2, 4)}, [ONE, TWO, TWO, ONE], tmp_path / "file"
    calls: list[int] = []

    def timed(each: Searching, scratch: Path) -> dict[str, Any]:
        calls.append(each.workers)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return {"seconds": float(len(calls)), "evaluated": 4}

    monkeypatch.setattr(workers, "timed", timed)
    with pytest.raises(KeyboardInterrupt):
        all_timed(searches, order, file)
    ended = all_timed(searches, order, file)
    assert calls == [1, 2, 2, 2, 1]
    assert {name: [each["seconds"] for each in its] for name, its in ended.items()} == {ONE: [1, 5], TWO: [2, 4]}
    calls.clear()
    all_timed({**searches, TWO: Searching(2, 4, 4)}, order[:2], file)
    assert calls == [1, 2], "others are others"
