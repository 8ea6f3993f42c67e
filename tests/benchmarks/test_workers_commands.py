from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import workers

from edgemtl.cli.search import search


class Begun(Exception):
    """Raised in place of a process."""


@pytest.mark.parametrize("count", [1, 2])
def test_its_searches_are_commands_that_exist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, count: int) -> None:
    commands: list[list[str]] = []

    def begin(command: list[str], **_: Any) -> None:
        commands.append(command)
        raise Begun

    monkeypatch.setattr(workers.subprocess, "Popen", begin)
    with pytest.raises(Begun):
        workers.searching(tmp_path / "run", count, 4)
    ((_, module, package, verb, *words),) = commands
    assert (module, package, verb) == ("-m", "edgemtl", "search")
    given = search.make_context("search", words).params
    assert (given["workers"], given["evaluations"], given["finetune"]) == (count, 4, 0)
