"""Profiles over a real OpenSSH server on loopback: one that goes well, and each way in which one can go wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from loopback import LoopbackBoard, free_port, run
from two_heads import bundle_in, engine_in

from edgemtl.devices import load_device, parse_reach
from edgemtl.errors import UserError
from edgemtl.files.seals import sha256
from edgemtl.profiling import Board, board_at, close_boards, find_measurer, profile, read_profile
from edgemtl.profiling.remote.board import MOST_CUTS
from edgemtl.profiling.remote.pack import bootstrap_source
from edgemtl.progress import Progress
from edgemtl.runtime import EngineSpec

SYSTEM_PYTHON = "/usr/bin/python3"


def refusal(action: Callable[[], object]) -> str:
    """The one line of the error that an action ends with."""
    with pytest.raises(UserError) as caught:
        action()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def wait_until(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_bundle_is_profiled_where_the_board_is(board: LoopbackBoard, tmp_path: Path) -> None:
    folder, manifest = bundle_in(tmp_path / "bundle")
    measured = profile(folder, board.url(), runs=20, threads=1)
    assert (measured.source, measured.runtime, measured.device) == ("bundle", "onnxruntime", board.url())
    assert measured.engine_sha256 == manifest.engine_sha256("onnxruntime")
    assert [mode.name for mode in measured.modes] == ["all tasks", "only depth", "only edges"]
    assert {mode.latency.kind for mode in measured.modes} == {"measured"}
    assert all(len(mode.latency.samples_ms) == 20 for mode in measured.modes)
    assert measured.opening is not None and measured.opening.open_ms > 0
    assert measured.opening.run_peak_bytes is not None
    assert measured.operators is not None and measured.counts is not None
    assert measured.environment["python"] and "sensors" in measured.environment
    assert measured.environment["git_commit"] is None, "it was taken on the board, in nobody's repository"
    assert "nothing watched" not in " ".join(measured.stability.reasons)


def test_a_connection_that_is_cut_is_made_again_and_the_work_goes_on(board: LoopbackBoard, tmp_path: Path) -> None:
    lines: list[str] = []
    before = board.cable.connections

    def report(progress: Progress) -> None:
        lines.append(progress.text)
        if progress.stage == "samples" and board.cable.connections == before + 1:
            board.cable.cut()

    measured = profile(engine_in(tmp_path / "engine"), board.url(), runs=4000, threads=1, report=report)
    assert board.cable.connections == before + 2
    assert any("was cut: connecting again" in line for line in lines)
    assert all(mode.latency.n == 4000 for mode in measured.modes)


def test_copying_goes_on_where_it_was_cut(board: LoopbackBoard, tmp_path: Path) -> None:
    engine = engine_in(tmp_path / "engine")
    (engine / "model.onnx").write_bytes(os.urandom(5 * 2**20))
    before, copied = board.cable.connections, []

    def report(progress: Progress) -> None:
        copied.append(progress.done)
        if progress.stage == "bytes copied" and progress.done >= 2 * 2**20 and board.cable.cuts == cuts:
            board.cable.cut()

    cuts, other = board.cable.cuts, Board(parse_reach(board.url()))
    digest = sha256(engine / "model.onnx")
    other.upload(engine, {"model.onnx": digest}, report)
    (stored,) = board.scratch.glob("*/store/*")
    assert (stored.name, sha256(stored)) == (digest, digest)
    assert board.cable.connections == before + 2
    other.close()


def test_a_board_that_stays_away_is_given_up(board: LoopbackBoard, tmp_path: Path) -> None:
    other = Board(parse_reach(board.url()), patience_s=0.5)
    assert other.greeting["machine"] == os.uname().machine
    other.reach = other.reach.model_copy(update={"port": free_port()})
    board.cable.cut()
    line = refusal(lambda: other.ask("missing", {"sizes": {}}))
    assert "Connection refused" in line and "did not come back" in line
    other.close()
    wait_until(lambda: board.left == [])  # the agent removes itself when its lease ends


def test_an_agent_whose_other_side_was_killed_goes_by_itself(board: LoopbackBoard) -> None:
    script = f"""
import os, signal
from edgemtl.devices import parse_reach
from edgemtl.profiling import Board
board = Board(parse_reach({board.url()!r}), patience_s=0.6)
board.greeting
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", script], check=False)
    wait_until(lambda: board.left == [])


def test_ctrl_c_removes_the_agent(board: LoopbackBoard, tmp_path: Path) -> None:
    folder, _ = bundle_in(tmp_path / "bundle")
    command = [sys.executable, "-m", "edgemtl", "profile", str(folder), "--device", board.url(), "--runs", "100000"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: any(path.endswith("progress") for path in board.left))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert "nothing was measured to the end" in errors
    assert board.left == []
    assert not (folder / "profile.json").exists()


def test_the_verb_writes_the_board_s_profile(board: LoopbackBoard, tmp_path: Path) -> None:
    folder, _ = bundle_in(tmp_path / "bundle")
    command = [sys.executable, "-m", "edgemtl", "profile", str(folder), "--device", board.url(), "--runs", "10"]
    done = subprocess.run([*command, "--format", "json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["device"] == board.url() == read_profile(folder).device
    assert board.left == []


def test_a_changed_host_key_is_refused(board: LoopbackBoard, tmp_path: Path) -> None:
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "other"))
    known = board.folder / "known_hosts"
    right = known.read_text()
    board.know((tmp_path / "other.pub").read_text())
    changed = refusal(lambda: Board(parse_reach(board.url())).greeting)
    known.write_text("")
    unknown = refusal(lambda: Board(parse_reach(board.url())).greeting)
    written = known.read_text()
    known.write_text(right)
    assert "shows another host key than the one that is known: somebody may be in between" in changed
    assert f"ssh-keygen -R '[127.0.0.1]:{board.cable.port}'" in changed
    assert "its host key is not known: log in once with" in unknown
    assert written == "", "a key that nobody compared was accepted"


def test_a_key_that_is_refused(board: LoopbackBoard) -> None:
    allowed = board.folder / "authorized"
    right = allowed.read_text()
    allowed.write_text("")
    line = refusal(lambda: Board(parse_reach(board.url())).greeting)
    allowed.write_text(right)
    assert "refuses the login" in line and "ssh-copy-id" in line


def test_a_board_that_is_off(board: LoopbackBoard) -> None:
    line = refusal(lambda: Board(parse_reach(f"ssh://pi@127.0.0.1:{free_port()}")).greeting)
    assert "cannot be reached" in line and "Connection refused" in line
    line = refusal(lambda: Board(parse_reach("ssh://pi@no-such-board.invalid")).greeting)
    assert "no host is called no-such-board.invalid" in line


def test_a_board_without_that_python(board: LoopbackBoard) -> None:
    line = refusal(lambda: Board(parse_reach(board.url("/opt/none/python3"))).greeting)
    assert "has no /opt/none/python3: install Python 3.8 or newer there" in line


def test_a_python_that_is_too_old(board: LoopbackBoard) -> None:
    old = next(Path.home().glob(".pyenv/versions/3.7.*/bin/python"), None)
    if old is None:
        pytest.skip("no Python 3.7 on this machine")
    line = refusal(lambda: Board(parse_reach(board.url(str(old)))).greeting)
    assert "Python 3.7 is too old, the agent needs 3.8 or newer" in line


def test_a_python_without_the_runtime(board: LoopbackBoard, tmp_path: Path) -> None:
    script = "from importlib.util import find_spec as f; print(bool(f('numpy')), bool(f('onnxruntime')))"
    there = subprocess.run([SYSTEM_PYTHON, "-I", "-c", script], capture_output=True, text=True, check=False).stdout
    if there.split() == ["True", "True"] or not there:
        pytest.skip(f"{SYSTEM_PYTHON} has the runtime, or is not there")
    lacking = "numpy" if there.startswith("False") else "onnxruntime"
    line = refusal(lambda: profile(engine_in(tmp_path / "engine"), board.url(SYSTEM_PYTHON)))
    assert f"its {SYSTEM_PYTHON} has no {lacking}, which the target onnxruntime needs" in line
    assert "/path/to/python3" in line


def test_another_architecture_than_the_device_file_says(board: LoopbackBoard, tmp_path: Path) -> None:
    reach = parse_reach(board.url())
    pi = load_device("raspberry-pi-5").model_copy(update={"reach": reach, "measurer": "ssh"})
    if board_at(reach).greeting["environment"]["cpu"]["class"] == pi.arithmetic:
        pytest.skip("this machine is one")
    close_boards()
    line = refusal(lambda: find_measurer(pi, "onnxruntime").open(engine_in(tmp_path / "engine")))
    assert "the file of device raspberry-pi-5 says arm-dot: correct its arithmetic, or its reach" in line
    assert os.uname().machine in line


def test_an_engine_that_the_processor_computes_wrongly(board: LoopbackBoard, tmp_path: Path) -> None:
    engine = changed(engine_in(tmp_path / "engine"), needs=["sums-of-another-world"])
    line = refusal(lambda: profile(engine, board.url()))
    assert "needs 'sums-of-another-world'" in line and "would compute wrongly" in line


def test_a_target_that_the_agent_does_not_open(board: LoopbackBoard, tmp_path: Path) -> None:
    engine = changed(engine_in(tmp_path / "engine"), runtime="tensorrt-rtx")
    assert "the agent opens engines of onnxruntime, openvino" in refusal(lambda: profile(engine, board.url()))


def test_an_engine_that_the_runtime_refuses(board: LoopbackBoard, tmp_path: Path) -> None:
    engine = engine_in(tmp_path / "engine")
    device = load_device(board.url())
    (engine / "model.onnx").write_bytes(b"no graph")
    line = refusal(lambda: find_measurer(device, "onnxruntime").open(engine))
    assert line.startswith(f"board {board.url()}: ONNX Runtime") and "cannot open" in line


def test_a_runtime_that_crashes(board: LoopbackBoard, tmp_path: Path) -> None:
    measurer = find_measurer(load_device(board.url()), "onnxruntime")
    session = measurer.open(engine_in(tmp_path / "engine"), threads=1)
    (pid,) = board.scratch.glob("*/pid")
    os.kill(int(pid.read_text()), signal.SIGSEGV)
    line = refusal(lambda: session.operator_times(image_for(session), session.tasks, 1))
    assert "the process that ran the engine ended (signal SIGSEGV)" in line
    assert "not open on the board any more" in refusal(lambda: session.run(image_for(session), session.tasks))


def test_a_board_without_space(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scratch = tmp_path / "small" / "scratch"
    scratch.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=17m", "none", str(scratch)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no small file system can be mounted here: that needs root")
    server = LoopbackBoard(tmp_path / "small").start()
    try:
        monkeypatch.setenv("PATH", f"{server.folder / 'bin'}:{os.environ['PATH']}")
        engine = engine_in(tmp_path / "engine")
        with (engine / "model.onnx").open("ab") as file:
            file.truncate(8 * 2**20)
        line = refusal(lambda: find_measurer(load_device(server.url()), "onnxruntime").open(engine))
        assert "no space left: the engine takes 83" in line and "are free" in line
        close_boards()
        assert server.left == []
        (scratch / "ballast").write_bytes(bytes(17 * 2**20 - 24 * 2**10))
        line = refusal(lambda: Board(parse_reach(server.url())).greeting)
        assert "the agent cannot be written to" in line and "No space left" in line
        assert server.left == ["ballast"]
    finally:
        server.stop()
        subprocess.run(["umount", "-l", str(scratch)], check=False)


LIAR = """#!{python}
import sys
sys.path.insert(0, {root!r})
from edgemtl.profiling.frames import Frame, read_frame, write_frame

sys.stdin.buffer.read(int(sys.argv[-2]) + {bootstrap})
write_frame(sys.stdout.buffer, Frame({{"packages": ["numpy", "onnxruntime"], "environment": {{}}}}))
while True:
    request = read_frame(sys.stdin.buffer).fields
    if request["do"] == {verb!r}:
        write_frame(sys.stdout.buffer, Frame({{"number": request["number"], **{answer!r}}}))
    elif request["do"] == "missing":
        write_frame(sys.stdout.buffer, Frame({{"number": request["number"], "missing": {{}}}}))
    else:
        write_frame(sys.stdout.buffer, Frame({{"number": request["number"], "opening": None, "notes": []}}))
"""


@pytest.mark.parametrize(
    ("verb", "answer"),
    [
        ("missing", {"missing": 5}),
        ("missing", {"partial": True, "progress": "much"}),
        ("open", {"opening": {"open_ms": -1}, "notes": []}),
        ("compare", {"samples": {"all tasks": [1e99] * 10}, "disturbance": {}}),
    ],
)
def test_a_board_that_answers_nonsense(board: LoopbackBoard, tmp_path: Path, verb: str, answer: dict[str, Any]) -> None:
    liar = tmp_path / "python3"
    bootstrap = len(bootstrap_source().encode())
    text = LIAR.format(python=sys.executable, root=str(Path.cwd()), bootstrap=bootstrap, verb=verb, answer=answer)
    liar.write_text(text)
    liar.chmod(0o755)
    line = refusal(lambda: profile(engine_in(tmp_path / "engine"), board.url(str(liar)), runs=10))
    assert "answers what is not understood" in line


QUITTER = """#!{python}
import sys
sys.path.insert(0, {root!r})
from edgemtl.profiling.frames import Frame, read_frame, write_frame

sys.stdin.buffer.read(int(sys.argv[-2]) + {bootstrap})
write_frame(sys.stdout.buffer, Frame({{}}))
read_frame(sys.stdin.buffer)
"""


def test_a_board_that_ends_every_connection_is_given_up(board: LoopbackBoard, tmp_path: Path) -> None:
    """As where the kernel ends the agent for want of memory each time: nobody waits for that to change."""
    quitter = tmp_path / "python3"
    bootstrap = len(bootstrap_source().encode())
    quitter.write_text(QUITTER.format(python=sys.executable, root=str(Path.cwd()), bootstrap=bootstrap))
    quitter.chmod(0o755)
    own, before = Board(parse_reach(board.url(str(quitter)))), board.cable.connections
    line = refusal(lambda: own.ask("missing", {"sizes": {}}))
    assert "ends every connection at the same request (missing)" in line and "dmesg" in line
    assert board.cable.connections - before == MOST_CUTS + 1
    own.close()


def test_where_there_is_no_ssh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "ssh cannot be started" in refusal(lambda: Board(parse_reach("ssh://pi@raspberrypi")).greeting)


def test_a_device_without_an_address(tmp_path: Path) -> None:
    pi = load_device("raspberry-pi-5").model_copy(update={"measurer": "ssh"})
    line = refusal(lambda: find_measurer(pi, "onnxruntime").open(engine_in(tmp_path / "engine")))
    assert "device raspberry-pi-5 has no address: write its host under reach in its file" in line


def changed(engine: Path, **fields: object) -> Path:
    content = json.loads((engine / "engine.json").read_text())
    (engine / "engine.json").write_text(json.dumps({**content, **fields}))
    return engine


def image_for(session: object) -> object:
    import numpy as np

    spec = getattr(session, "spec", None)
    assert isinstance(spec, EngineSpec)
    return np.zeros(spec.input, np.float32)
