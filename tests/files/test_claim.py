"""A folder has one owner; what a killed one left half-written goes, and nothing else does."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import socket
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from edgemtl.errors import UserError
from edgemtl.files.claim import LOCK_FILE, claim, remove_written, scratch_beside
from edgemtl.files.disk import check_own, write_atomic

FORK = multiprocessing.get_context("fork")


def hold(folder: Path, ready: Event) -> None:
    with claim(folder, "search"):
        ready.set()
        time.sleep(600)


def held(folder: Path) -> multiprocessing.context.ForkProcess:
    """A process that owns the folder."""
    ready = FORK.Event()
    holder = FORK.Process(target=hold, args=(folder, ready))
    holder.start()
    assert ready.wait(60)
    return holder


def test_a_second_owner_is_told_who_has_the_folder_since_when(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    holder = held(folder)
    try:
        with pytest.raises(UserError) as caught, claim(folder, "prune"):
            pass
    finally:
        holder.kill()
        holder.join()
    line = str(caught.value)
    assert "\n" not in line
    assert f"{folder} is in use by edgemtl search, process {holder.pid} on {socket.gethostname()} since 20" in line
    assert "choose another --out" in line
    assert (folder / LOCK_FILE).is_file()
    with claim(folder, "prune"):  # the owner was killed
        assert json.loads((folder / LOCK_FILE).read_text())["verb"] == "prune"
    assert list(folder.iterdir()) == []


def test_two_in_one_process_are_two(tmp_path: Path) -> None:
    with (
        claim(tmp_path / "a", "search"),
        claim(tmp_path / "b", "search"),
        pytest.raises(UserError, match=f"process {os.getpid()} "),
        claim(tmp_path / "a", "train"),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_child_does_not_hold_what_its_parent_held(tmp_path: Path) -> None:
    with claim(tmp_path / "run", "search"):
        (tmp_path / "run" / "config.json").write_text("{}")
        child = FORK.Process(target=time.sleep, args=(600,))
        child.start()
    try:
        with claim(tmp_path / "run", "search"):
            pass
    finally:
        child.kill()
        child.join()
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]


def test_folders_that_were_made_for_it_are_unmade_unless_something_is_in_them(tmp_path: Path) -> None:
    with claim(tmp_path / "a" / "b" / "c", "search"):
        pass
    assert list(tmp_path.iterdir()) == []
    with claim(tmp_path / "a" / "b", "search"):
        (tmp_path / "a" / "mine").write_text("")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["mine"]


@pytest.mark.parametrize("kind", ["file", "link", "fifo", "folder"])
def test_what_is_no_lock_is_refused_and_left_alone(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    lock = folder / LOCK_FILE
    if kind == "file":
        folder.rmdir()
        folder.write_text("mine")
    elif kind == "link":
        (tmp_path / "mine").write_text("mine")
        lock.symlink_to(tmp_path / "mine")
    elif kind == "fifo":
        os.mkfifo(lock)
    else:
        lock.mkdir()
    with pytest.raises(UserError, match="choose another --out") as caught, claim(folder, "search"):
        pass
    assert "\n" not in str(caught.value)
    if kind == "link":
        assert (tmp_path / "mine").read_text() == "mine"


def die_writing(path: Path) -> None:
    os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
    write_atomic(path, b"half" * 1000)


def test_what_a_killed_process_had_half_written_goes_and_nothing_else(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    writer = FORK.Process(target=die_writing, args=(folder / "designs" / "best" / "weights.safetensors",))
    writer.start()
    writer.join()
    (left,) = (folder / "designs" / "best").iterdir()
    mine = [folder / ".notes.edgemtl", folder / ".notes.abcdefgh.part", folder / ".abcdefgh.edgemtl"]
    for path in mine:
        path.write_text("mine")
    (folder / ".mine.new").mkdir()
    (folder / ".mine.new" / "file").write_text("mine")
    with claim(folder, "search"):
        assert not left.exists()
    assert all(path.read_text() == "mine" for path in [*mine, folder / ".mine.new" / "file"])


def scratch_and_wait(folder: Path, ready: Event) -> None:
    with scratch_beside(folder, "export") as scratch:
        (scratch / "model.onnx").write_text("half")
        ready.set()
        time.sleep(600)


def test_a_scratch_folder_goes_with_its_process_or_is_cleared_by_the_next(tmp_path: Path) -> None:
    ready = FORK.Event()
    writer = FORK.Process(target=scratch_and_wait, args=(tmp_path / "run" / "bundle", ready))
    writer.start()
    assert ready.wait(60)
    try:
        with claim(tmp_path / "run", "search"):
            assert (tmp_path / "run" / ".bundle.new" / "bundle" / "model.onnx").is_file(), "its process lives"
        again = scratch_beside(tmp_path / "run" / "bundle", "export")
        with pytest.raises(UserError, match="bundle is in use by edgemtl export"), again:
            pass
    finally:
        writer.kill()
        writer.join()
    with scratch_beside(tmp_path / "run" / "other", "export") as scratch:
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".other.new"]
        assert list(scratch.iterdir()) == []
    assert not any((tmp_path / "run").iterdir())


def test_a_scratch_folder_that_was_just_made_is_no_obstacle_and_goes(tmp_path: Path) -> None:
    (tmp_path / ".bundle.new").mkdir()
    with scratch_beside(tmp_path / "bundle", "export") as scratch:
        assert scratch.is_dir()
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_folder_whose_clearing_was_stopped_is_known_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a second Ctrl-C."""

    def stop(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("edgemtl.files.claim._empty", stop)
        with scratch_beside(tmp_path / "bundle", "export"):
            pass
    assert (tmp_path / ".bundle.new" / "bundle").is_dir()
    with scratch_beside(tmp_path / "bundle", "export"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_is_left_of_one_file_goes_without_a_claim(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    for path in (page, tmp_path / "in" / "report.html", tmp_path / "other.html"):
        writer = FORK.Process(target=die_writing, args=(path,))
        writer.start()
        writer.join()
    check_own(page, "mark", "report")
    left = sorted(path.relative_to(tmp_path).as_posix().split("html")[0] for path in tmp_path.rglob("*.edgemtl"))
    assert left == [".other.", "in/.report."]


def test_only_what_was_written_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    for name in ("engines/a/model", "engines/a/changed", "engines/b/model", "engines/b/mine"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (tmp_path / "outside").write_text("outside")
    (folder / "link").symlink_to(tmp_path / "outside")
    (folder / "elsewhere").symlink_to(tmp_path)
    names = ["engines/a/model", "engines/a/changed", "engines/b/model", "../outside", "link", "elsewhere/outside", "no"]
    files = {name: hashlib.sha256(Path(name).name.encode()).hexdigest() for name in names}
    files |= {name: hashlib.sha256(name.encode()).hexdigest() for name in ("engines/a/model", "engines/b/model")}
    remove_written(folder, files)
    assert (tmp_path / "outside").read_text() == "outside"
    left = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert left == ["engines/a/changed", "engines/b/mine", "link"]
    remove_written(folder, {"engines/a/changed": hashlib.sha256(b"engines/a/changed").hexdigest()})
    assert not (folder / "engines" / "a").exists()
    assert folder.is_dir()
