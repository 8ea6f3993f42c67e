"""`edgemtl devices new` and `edgemtl doctor --device`, from a new file to what is still missing."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from loopback import LoopbackBoard, free_port, need_sshd, write_device

from edgemtl.arithmetic import own_arithmetic
from edgemtl.cli import main
from edgemtl.profiling import find_rails

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


@pytest.fixture
def board(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackBoard]:
    """A board that `ssh` finds, and on which nothing is left after the test."""
    need_sshd()
    server = LoopbackBoard(tmp_path_factory.mktemp("board")).start()
    monkeypatch.setenv("PATH", f"{server.folder / 'bin'}:{os.environ['PATH']}")
    yield server
    assert server.left == []
    server.stop()


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
    closed = f"reach: {{host: 127.0.0.1, port: {free_port()}}}"
    path.write_text(path.read_text().replace("#>reach: {host: 192.168.1.20, user: me}", closed))
    after = findings(here, "my-pi")
    assert not after["access"]["good"] and "cannot be reached" in after["access"]["remedy"]
    assert after["latency by onnxruntime"]["state"] == "measured there"


def test_a_file_that_cannot_be_read_hides_no_other_board(here: Here) -> None:
    for name in ("my-pi", "broken"):
        assert here("devices", "new", name)[0] == 0
    Path("profiles/broken.yaml").write_text("memory: [")
    status, shown, error = here("devices")
    assert status == 0 and {"host", "my-pi"} <= {each["name"] for each in shown}
    assert "profiles/broken.yaml line 1" in error and "not valid YAML" in error
    assert here("devices", "broken")[0] == 1


def test_a_board_that_answers_is_held_against_its_file(here: Here, board: LoopbackBoard) -> None:
    write_device(Path(), board.cable.port, own_arithmetic())
    answered = findings(here, "my-board")
    assert answered["access"]["good"] and answered["access"]["state"].startswith("ssh://")
    assert f"Python {sys.version.split()[0]}" in answered["board"]["state"]
    assert answered["processor"]["good"] and answered["processor"]["state"].startswith(os.uname().machine)
    assert version("onnxruntime") in answered["package onnxruntime"]["state"] and answered["package numpy"]["good"]
    assert "package openvino" not in answered, "the file names no such runtime"
    assert (
        not answered["package tensorrt"]["good"]
        and "apt-get install python3-libnvinfer" in answered["package tensorrt"]["remedy"]
    )
    assert answered["energy"] == findings(here, "host")["energy"], "the board is this machine"
    write_device(Path(), board.cable.port, "arm" if own_arithmetic() != "arm" else "avx2")
    other = findings(here, "my-board")["processor"]
    assert not other["good"] and "correct its arithmetic, or its reach" in other["remedy"]


def test_a_measurer_that_is_not_ssh_is_named_and_not_logged_in_to(here: Here) -> None:
    write_device(Path(), free_port(), own_arithmetic())
    path = Path("profiles/my-board.yaml")
    path.write_text(f"{path.read_text()}measurer: none\n")
    access = findings(here, "my-board")["access"]
    assert access["good"] and access["state"].endswith(", by the measurer none")


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


def test_energy_is_what_the_machine_s_own_files_say_and_of_others_what_theirs_does(here: Here) -> None:
    rails, reason = find_rails()
    own = findings(here, "host")["energy"]
    assert own["good"] == bool(rails)
    assert own["state"] == (f"measured by {', '.join(r.name for r in rails)}" if rails else f"not measured: {reason}")
    assert findings(here, "jetson-orin-nano")["energy"]["state"] == "VDD_IN (power)"
    assert not findings(here, "raspberry-pi-5")["energy"]["good"], "a program alone tells its power"


def test_an_fpga_has_its_time_in_cycles_and_lacks_no_rates(here: Here) -> None:
    board = findings(here, "zcu104")
    assert board["latency by hls"]["good"] and "cycles of 5 ns" in board["latency by hls"]["state"]
    assert (board["facts"]["state"], board["facts"]["remedy"]) == ("stated: memory, fpga", "add sensors")


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


def test_targets_of_a_board_are_those_of_its_runtimes_and_one_line_names_the_others(here: Here) -> None:
    status, shown, error = here("targets", "--device", "zcu104")
    assert status == 0 and [each["name"] for each in shown] == ["hls"]
    others = "onnxruntime, openvino, streaming, tensorrt, tensorrt-rtx"
    assert error == f"not on zcu104, whose file names the runtimes hls4ml: {others}\n"


def test_an_address_has_no_file_that_could_lack_facts(here: Here) -> None:
    status, shown, _ = here("doctor", "--device", f"ssh://pi@127.0.0.1:{free_port()}")
    about = {each["about"] for each in shown["findings"]}
    assert status == 0 and "access" in about and not about & {"file", "facts", "sources"}
