from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from plugged import install

import edgemtl.data as data
from edgemtl.errors import UserError


def test_every_exported_name_is_there() -> None:
    for name in data.__all__:
        assert getattr(data, name) is not None
    assert data.source_names() == ["elpv", "scenes"]


def test_data_needs_no_torch() -> None:
    code = "import sys, edgemtl.data; print('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "False"


PLUGGED = """
from edgemtl.data.scenes import ScenesSource

def rooms(size):
    return ScenesSource(size, train=8)

def broken(size):
    return size.height
"""


def test_a_source_of_another_package_is_opened_by_its_name(site: Path) -> None:
    install(site, "edgemtl.sources", "rooms = edgemtl_rooms:rooms", PLUGGED)
    install(site, "edgemtl.sources", "broken = edgemtl_rooms:broken", PLUGGED)
    assert data.source_names() == ["broken", "elpv", "rooms", "scenes"]
    assert len(data.open_source("rooms", (24, 32)).split("train")) == 8
    with pytest.raises(UserError, match="data set 'broken', which edgemtl_rooms:broken brings, fails"):
        data.open_source("broken", (24, 32))
