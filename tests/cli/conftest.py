"""The command in this process, which spares an import of torch for each call."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from chain import Here, environment

from edgemtl.cli import main


@pytest.fixture
def here(workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Here]:
    """The command in the module's own `workplace`, on a screen so wide that no line breaks."""
    monkeypatch.chdir(workplace)
    monkeypatch.setenv("EDGEMTL_CACHE", environment(workplace)["EDGEMTL_CACHE"])
    monkeypatch.setenv("COLUMNS", "400")

    def call(*words: str) -> tuple[int, str, str]:
        status = main(words)
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    with warnings.catch_warnings():
        yield call
    logging.disable(logging.NOTSET)
