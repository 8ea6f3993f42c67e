from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from edgemtl.errors import UserError
from edgemtl.files import share as _share
from edgemtl.files.share import find_shared, list_shared


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a `nas/` folder of its own."""
    folder = tmp_path / "work" / "nas"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder.parent)
    return folder


def test_what_ships_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = find_shared("nas", "cnn.yaml")
    assert found is not None
    assert found.read_text().count("edgemtl.space/1") == 1
    assert {"cnn", "mobilenetv2"} <= set(list_shared("nas"))
    assert "host" in list_shared("profiles")


def test_a_users_own_file_comes_first(mine: Path) -> None:
    (mine / "cnn.yaml").write_text("mine")
    found = find_shared("nas", "cnn.yaml")
    assert found == mine / "cnn.yaml"
    shipped = find_shared("nas", "mobilenetv2.yaml")
    assert shipped is not None
    assert mine not in shipped.parents


def test_lists_hold_both_once_and_in_order(mine: Path) -> None:
    for name in ("cnn.yaml", "aaa.yaml", "notes.txt"):
        (mine / name).write_text("")
    names = list_shared("nas")
    assert names == sorted(set(names))
    assert {"aaa", "cnn", "mobilenetv2"} <= set(names)
    assert "notes" not in names


def test_a_folder_of_that_name_is_no_file(mine: Path) -> None:
    (mine / "other.yaml").mkdir()
    assert find_shared("nas", "other.yaml") is None


def test_what_is_not_there(mine: Path) -> None:
    assert find_shared("nas", "nothing.yaml") is None
    assert find_shared("nowhere", "cnn.yaml") is None
    assert list_shared("nowhere") == []


def test_a_wheel_carries_the_files_inside_the_package(
    mine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where `share/` lies beside the modules it is what ships: nothing is looked for at the root of a checkout."""
    package = tmp_path / "site" / "edgemtl"
    (package / "share" / "nas").mkdir(parents=True)
    (package / "share" / "nas" / "wheel.yaml").write_text("")
    shutil.copy(_share.__file__, package)
    monkeypatch.setattr(_share, "_PACKAGE", package)
    assert list_shared("nas") == ["wheel"]
    assert find_shared("nas", "wheel.yaml") == package / "share" / "nas" / "wheel.yaml"


def test_no_name_and_no_link_leads_out_of_the_folder(mine: Path) -> None:
    (mine.parent / "secret.yaml").write_text("secret")
    (mine / "linked.yaml").symlink_to(mine.parent / "secret.yaml")
    for name in ("../secret.yaml", "linked.yaml", str(mine.parent / "secret.yaml")):
        with pytest.raises(UserError, match="lies outside it: refused"):
            find_shared("nas", name)


def test_what_is_no_file_is_not_listed(mine: Path) -> None:
    (mine / "folder.yaml").mkdir()
    os.mkfifo(mine / "pipe.yaml")
    assert not {"folder", "pipe"} & set(list_shared("nas"))
