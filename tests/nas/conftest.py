"""A small world to search in."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_world import Ask

from edgemtl.data import open_source
from edgemtl.nas.search import SearchRequest
from edgemtl.spaces import load_space
from edgemtl.testing.landscape import write_space
from edgemtl.testing.world import write_data, write_supernet


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`nas/tiny.yaml`, `photos/` and `supernet.safetensors` in one folder."""
    home = tmp_path_factory.mktemp("home")
    write_space(home)
    source = open_source(str(write_data(home / "photos")), (64, 64))
    write_supernet(load_space(str(home / "nas" / "tiny.yaml"), source.tasks), home / "supernet.safetensors")
    return home


@pytest.fixture
def ask(home: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Requests for quick searches in that folder, good or not; the working directory is there."""
    monkeypatch.chdir(home)

    def request(out: Path, **changes: Any) -> SearchRequest:
        defaults: dict[str, Any] = {
            "budgets": ("80%FLOPs",),
            "space": "tiny",
            "data": "photos",
            "evaluations": 4,
            "batch": 2,
            "supernet": home / "supernet.safetensors",
            "threads": 1,
            "finalists": 1,
            "finetune": 0,
            "settings": {} if "strategy" in changes else {"generations": 5},
        }
        return SearchRequest(out, **(defaults | changes))

    return request


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 128 KiB with nothing else on it; only root may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "edgemtl-test", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)
