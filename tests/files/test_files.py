from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgemtl.errors import FileError, UserError, naming
from edgemtl.files.disk import (
    JSON_LIMIT_BYTES,
    _part_prefix,
    clear_parts,
    read_bytes,
    read_json,
    write_atomic,
    write_json,
)
from edgemtl.files.json import parse_json
from edgemtl.files.paths import inside, within
from edgemtl.files.seals import sha256


def one_line(error: pytest.ExceptionInfo[UserError]) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB with nothing else on it; only root may make one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "edgemtl-test", str(folder)]
    if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_text_and_bytes_are_written_and_folders_made(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "b" / "text", "größer")
    write_atomic(tmp_path / "a" / "bytes", b"\0\xff")
    assert (tmp_path / "a" / "b" / "text").read_bytes() == "größer".encode()
    assert (tmp_path / "a" / "bytes").read_bytes() == b"\0\xff"
    assert names(tmp_path / "a") == ["b", "bytes"]


def test_what_is_written_can_be_read_by_others(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", "x")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


def test_a_name_of_many_bytes_a_letter_is_written(tmp_path: Path) -> None:
    path = tmp_path / ("深" * 80 + ".json")
    write_json(path, 1)
    assert read_json(path, "run") == 1 and list(tmp_path.iterdir()) == [path]
    part = tmp_path / f"{_part_prefix(path.name)}abcdefgh.edgemtl"
    part.touch()
    clear_parts(tmp_path, path.name)
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    """A folder in the place of the file: the rename at the very end is what fails."""
    (tmp_path / "taken" / "inside").mkdir(parents=True)
    with pytest.raises(UserError) as error:
        write_atomic(tmp_path / "taken", b"x" * 1000)
    assert "cannot write" in one_line(error)
    assert "(1000 bytes)" in str(error.value)
    assert names(tmp_path) == ["taken"]


def test_a_file_in_the_place_of_a_folder(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", "old")
    with pytest.raises(UserError, match="cannot write"):
        write_atomic(tmp_path / "file" / "inner", "new")
    assert (tmp_path / "file").read_text() == "old"


def test_a_full_disk_leaves_the_old_file_and_nothing_else(small_disk: Path) -> None:
    write_atomic(small_disk / "result.json", "old")
    with pytest.raises(UserError) as error:
        write_atomic(small_disk / "result.json", b"n" * 200_000)
    line = one_line(error)
    assert "No space left on device" in line
    assert "(200000 bytes)" in line
    assert "free space or choose another --out" in line
    assert (small_disk / "result.json").read_text() == "old"
    assert names(small_disk) == ["result.json"]
    write_atomic(small_disk / "result.json", b"n" * 20_000)  # what was taken is given back


LIMITED = """
import resource, sys
from pathlib import Path
from edgemtl.files.disk import write_atomic
from edgemtl.errors import UserError
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_atomic(Path(sys.argv[1]), b"n" * 5000)
except UserError as error:
    print(error)
"""


def test_a_write_that_the_system_cuts_short_leaves_the_old_file(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", "old")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path / "file")], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith(f"cannot write {tmp_path / 'file'} (5000 bytes): File too large")
    assert (tmp_path / "file").read_text() == "old"
    assert names(tmp_path) == ["file"]


WRITER = """
import itertools, sys
from pathlib import Path
from edgemtl.files.disk import write_atomic
for letter in itertools.cycle(b"ab"):
    write_atomic(Path(sys.argv[1]), bytes([letter]) * (8 << 20))
"""


def is_writing(folder: Path) -> bool:
    """Whether part of a file is there at this moment; it may become the file between the listing and the look."""
    with suppress(FileNotFoundError):
        return any(path.stat().st_size for path in folder.glob(".file.*"))
    return False


def test_a_process_killed_in_the_middle_of_a_write_leaves_a_whole_file(tmp_path: Path) -> None:
    file = tmp_path / "file"
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(file)])
        try:
            deadline = time.monotonic() + 60
            while not (file.exists() and is_writing(tmp_path)):
                assert time.monotonic() < deadline, "nothing is being written"
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        content = file.read_bytes()
        assert content in (b"a" * (8 << 20), b"b" * (8 << 20))
        for left in tmp_path.glob(".file.*"):
            left.unlink()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(deadline=None, max_examples=30)
@given(json_values)
def test_json_reads_back(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.mktemp("json") / "value.json"
    write_json(path, value)
    assert read_json(path, "value") == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1, {"a": -float("inf")}]])
def test_numbers_that_json_lacks_are_refused(tmp_path: Path, value: object) -> None:
    with pytest.raises(ValueError):
        write_json(tmp_path / "value.json", value)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "is not valid JSON"),
        (b'{"a": ', "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b"[" * 200_000, "is not valid JSON"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "result.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as error:
        read_json(path, "result")
    assert expected in one_line(error)
    assert f"result {path}" in str(error.value)


def test_a_file_that_is_not_there_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read run .*No such file"):
        read_json(tmp_path / "config.json", "run")
    with pytest.raises(UserError, match=r"cannot read run .*directory"):
        read_json(tmp_path, "run")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(JSON_LIMIT_BYTES + 1)
    with pytest.raises(UserError, match="larger than"):
        read_json(path, "run")


def test_sha256_is_that_of_the_content(tmp_path: Path) -> None:
    content = os.urandom(3 << 20)
    (tmp_path / "file").write_bytes(content)
    assert sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_json_is_indented_and_ends_with_a_line(tmp_path: Path) -> None:
    write_json(tmp_path / "value.json", {"a": [1]})
    text = (tmp_path / "value.json").read_text()
    assert text.endswith("}\n")
    assert text == json.dumps({"a": [1]}, indent=2) + "\n"


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.json"
    os.mkfifo(pipe)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
        for path, kind in ((pipe, "a pipe"), (Path("/dev/zero"), "a device"), (tmp_path, "a directory")):
            for read in (lambda path: read_json(path, "run"), sha256, lambda path: read_bytes(path, "run", 100)):
                with pytest.raises(UserError, match=f"cannot read .*: it is {kind}.*, a regular file is wanted"):
                    read(path)
        with pytest.raises(UserError, match="cannot read run"):
            read_json(tmp_path / "socket", "run")
    with pytest.raises(UserError, match="cannot read run"):
        read_json(Path("a\0b"), "run")


def test_a_file_that_has_another_name_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "2.png").mkdir()
    for name, reason in (("1.png", "No such file or directory"), ("2.png", "it is a directory")):
        with pytest.raises(FileError) as error, naming(f"labels/{name}"):
            read_bytes(tmp_path / name, "label", 9)
        assert str(error.value).startswith(f"labels/{name}: cannot be read: {reason}")
        assert str(tmp_path) not in str(error.value)


def test_no_byte_beyond_the_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 10)
    assert read_bytes(tmp_path / "file", "run", 10) == b"x" * 10
    with pytest.raises(UserError, match="larger than 9 bytes"):
        read_bytes(tmp_path / "file", "run", 9)


def test_a_file_without_a_size_is_read_whole() -> None:
    """Those of /proc say that they hold nothing."""
    assert b"VmRSS" in read_bytes(Path("/proc/self/status"), "status", 100_000)


def test_no_path_leaves_its_folder(tmp_path: Path) -> None:
    folder, outside = tmp_path / "run", tmp_path / "outside"
    (folder / "inner").mkdir(parents=True)
    outside.mkdir()
    (outside / "file").write_text("x")
    (folder / "link").symlink_to(outside)
    (folder / "file").symlink_to(outside / "file")
    (folder / "loop").symlink_to(folder / "loop")
    (folder / "near").symlink_to(folder / "inner")
    for name in ("link", "link/file", "file", "../outside/file", "/etc/passwd", "inner/../../x", "a\\..\\b", "a\0b"):
        with pytest.raises(UserError, match="lies outside it: refused"):
            inside(folder, name, "run")
    for name in ("inner", "near/new", "new/file"):
        assert inside(folder, name, "run") == folder / name
    for name in ("深" * 86, "inner/" + "a" * 256, "a/" * 2100):
        with pytest.raises(UserError, match="which is too long: at most 255 bytes a name") as error:
            inside(folder, name, "run")
        assert len(str(error.value)) < 400
    assert inside(folder, "深" * 85, "run") == folder / ("深" * 85)
    assert within(folder, folder / "near") and not within(folder, folder / "link")


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"a": 1, "b": 2, "a": 1}', "the key 'a' is there twice"),
        ("{" + "".join(f'"{n}": 0, ' for n in range(200_000)) + '"199999": 0}', "the key '199999' is there twice"),
        ("[NaN]", "NaN is no number of JSON"),
        ("[-Infinity]", "-Infinity is no number of JSON"),
        ("[1e999]", "the number 1e999 is not finite"),
        (f"[{'9' * 5000}]", "a whole number has 5000 digits, at most 100 are read"),
        (f"[-{'9' * 101}]", "a whole number has 101 digits"),
        ("[" * 100_000, "it is nested too deeply"),
        ('{"a": ' * 100_000, "it is nested too deeply"),
        ("[" + "[]," * 4_000_000 + "[]]", "it holds more than 4,000,000 values"),
        (r'["\ud800"]', "half of a character"),
        ('["a\0"]', "Invalid control character"),
    ],
)
def test_json_that_other_parsers_let_through(tmp_path: Path, content: str, expected: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(UserError) as error:
        read_json(tmp_path / "run.json", "run")
    assert expected in one_line(error)
    assert len(str(error.value)) < 400


def test_json_of_whole_characters_is_read() -> None:
    assert parse_json(r'["\ud83d\ude00", 1e300, -0.5]') == ["😀", 1e300, -0.5]


def test_a_file_that_claims_to_be_huge_is_not_hashed(tmp_path: Path) -> None:
    with (tmp_path / "hole").open("wb") as file:
        file.truncate(2**32 + 1)
    with pytest.raises(UserError, match="larger than 4294967296 bytes"):
        sha256(tmp_path / "hole")
