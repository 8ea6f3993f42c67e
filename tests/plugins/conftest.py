from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgemtl.cli import main


@pytest.fixture
def command(home: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any, str]]:
    """The command in this process, in the test's `home`: its status, its JSON and its errors."""

    def call(*words: str) -> tuple[int, Any, str]:
        status = main([*words, "--format", "json"])
        shown = capsys.readouterr()
        return status, json.loads(shown.out) if status == 0 else None, shown.err

    return call
