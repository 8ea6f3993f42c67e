"""A device file of one's own opens again, as it is written and with every example in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from refusals import refused

from edgemtl.devices import load_device, new_device


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_new_file_opens_again_as_it_is_and_with_every_example() -> None:
    path = new_device("my-board")
    assert path == Path("profiles/my-board.yaml")
    device = load_device("my-board")
    assert (device.title, device.kind, device.arithmetic, device.reach.host) == ("my-board", "board", "other", "")
    text = path.read_text()
    path.write_text(text.replace("#>", ""))
    whole = load_device("my-board")
    assert whole.memory_bytes == 8 * 2**30 and whole.peaks_of("cpu") == {"fp32": 153.6e9, "int8": 614.4e9}
    assert whole.fpga is not None and whole.reach.host == "192.168.1.20" and len(whole.runtimes) == 3
    assert whole.sources[0].facts == ("memory", "bandwidth")
    assert all(field in text for field in re.findall(r"^(\w+):", text.replace("#>", ""), re.MULTILINE))


@pytest.mark.parametrize("like", ["jetson-orin-nano", "raspberry-pi-5", "zcu104", "x86-avx2"])
def test_a_new_file_may_begin_as_a_shipped_board(like: str) -> None:
    new_device("mine", like)
    mine, theirs = load_device("mine"), load_device(like)
    assert (mine.name, mine.title) == ("mine", f"mine, begun as {like}")
    assert mine.model_copy(update={"name": like, "title": theirs.title}) == theirs
    path = Path("profiles/mine.yaml")
    path.write_text(path.read_text().replace("#>", ""))
    assert load_device("mine").reach.user == "me"


@pytest.mark.parametrize(
    ("name", "like", "says"),
    [
        ("My Board", None, "device name 'My Board': give small letters"),
        ("../profiles/x", None, "give small letters"),
        ("", None, "give small letters"),
        ("zcu102", None, "device name 'zcu102' is taken: choose another one, for example my-zcu102"),
        ("new", None, "is taken"),
        ("mine", "host", "this machine is detected"),
        ("mine", "jetson-orin-nan", "did you mean jetson-orin-nano"),
    ],
)
def test_a_bad_name_is_refused_and_nothing_is_written(name: str, like: str | None, says: str, workplace: Path) -> None:
    assert says in refused(lambda: new_device(name, like))
    assert list(workplace.iterdir()) == []


def test_a_file_is_never_written_over() -> None:
    path = new_device("mine")
    path.write_text(path.read_text().replace("title:", "soc: x\ntitle:"))
    assert f"is taken: change {path.resolve()}, or choose another" in refused(lambda: new_device("mine"))
    assert load_device("mine").soc == "x"
