"""`edgemtl devices new` and `edgemtl doctor --device`, from a new file to what is still missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgemtl.cli import main

Here = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """A command in this process: its status, its JSON and its errors."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> tuple[int, Any, str]:
        status = main([*words, "--format", "json"])
        shown = capsys.readouterr()
        return status, json.loads(shown.out) if shown.out else None, shown.err

    return call


def findings(here: Here, name: str) -> dict[str, dict[str, Any]]:
    status, shown, error = here("doctor", "--device", name)
    assert status == 0, error
    assert shown["device"] == name
    return {each["about"]: each for each in shown["findings"]}


def test_a_board_of_ones_own_from_its_file_to_what_it_lacks(here: Here) -> None:
    status, made, error = here("devices", "new", "my-pi", "--like", "raspberry-pi-5")
    assert (status, made[0]["name"]) == (0, "my-pi") and "profiles/my-pi.yaml was written" in error
    before = findings(here, "my-pi")
    assert not before["access"]["good"] and "fill in reach" in before["access"]["remedy"]
    assert "estimated: roofline of my-pi/onnxruntime" in before["latency by onnxruntime"]["state"]
    assert before["facts"]["remedy"] == "add power_modes" and "sources" not in before
    path = Path("profiles/my-pi.yaml")
    path.write_text(path.read_text().replace("#>", ""))
    after = findings(here, "my-pi")
    assert after["access"]["state"] == "ssh://me@192.168.1.20"
    assert after["latency by onnxruntime"]["state"] == "measured there"


def test_what_a_bare_file_lacks_is_named(here: Here) -> None:
    assert here("devices", "new", "bare")[0] == 0
    bare = findings(here, "bare")
    assert "states no bandwidth and no peak of fp32" in bare["latency by onnxruntime"]["remedy"]
    assert bare["facts"]["state"] == "stated: none" and not bare["energy"]["good"]


def test_a_runtime_without_a_target_and_this_machine(here: Here) -> None:
    assert here("devices", "new", "mine")[0] == 0
    path = Path("profiles/mine.yaml")
    path.write_text(
        path.read_text().replace("name: onnxruntime, precisions: [fp32, int8]}", "name: litert, precisions: [fp32]}")
    )
    assert findings(here, "mine")["runtime litert"]["state"] == "there is no target for it here"
    host = findings(here, "host")
    assert host["access"]["state"] == "this machine" and host["latency by onnxruntime"]["state"] == "measured here"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("doctor", "--device", "jetson-orin-nan"), "did you mean jetson-orin-nano"),
        (("devices", "new"), "devices new: 0 names given, give one"),
        (("devices", "new", "a", "b"), "2 names given"),
        (("devices", "--like", "zcu104"), "--like zcu104 is for devices new NAME"),
    ],
)
def test_bad_input_is_one_line(here: Here, words: tuple[str, ...], says: str) -> None:
    status, _, error = here(*words)
    assert status == 1 and says in error and error.count("\n") == 1
