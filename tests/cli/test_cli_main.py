from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgemtl.cli import app as _main
from edgemtl.cli import main
from edgemtl.cli import verb as _verb
from edgemtl.data.folder import folder_kinds
from edgemtl.errors import EngineWarning, MissingDependencyError, UserError


@pytest.fixture(autouse=True)
def _own_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`main` belongs to a process: undo what it says to warnings and logging. Test runners may narrow the screen."""
    monkeypatch.setenv("COLUMNS", "200")
    with warnings.catch_warnings():
        yield
    logging.disable(logging.NOTSET)


def fails_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make `edgemtl tasks` raise `error`."""

    def body(**values: object) -> None:
        raise error

    monkeypatch.setattr(_main._edgemtl.commands["tasks"], "callback", body)


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (UserError("budget '0' is not above zero"), 1, "error: budget '0' is not above zero"),
        (MissingDependencyError("openvino", "openvino", "this"), 1, "pip install 'edgemtl[openvino]'"),
        (
            OSError(28, "No space left on device", "/full/file"),
            1,
            "error: the system refused /full/file: No space left",
        ),
        (MemoryError(), 1, "error: the memory"),
        (OSError(5, "Input/output error"), 3, "fault: OSError"),
        (KeyError("odd"), 3, "fault: KeyError: 'odd'"),
        (KeyboardInterrupt(), 130, "interrupted: "),
        (_verb.Interrupted("half is kept; go on with X"), 130, "interrupted: half is kept; go on with X"),
    ],
)
def test_every_outcome_is_one_line_and_its_status(
    error: BaseException, status: int, text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fails_with(error, monkeypatch)
    assert main(["tasks"]) == status
    shown = capsys.readouterr()
    assert shown.out == ""
    assert len(shown.err.strip().splitlines()) == 1
    assert text in shown.err


@pytest.mark.parametrize("error", [UserError("no such thing"), KeyError("odd")])
def test_debug_shows_the_traceback(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fails_with(error, monkeypatch)
    main(["tasks", "--debug"])
    shown = capsys.readouterr().err
    assert "Traceback" in shown and type(error).__name__ in shown


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["serch"], "search"),
        (["search", "--bugdet", "2GFLOPs"], "--budget"),
        (["tasks", "--format", "xml"], "table"),
        (["profile"], "PATH"),
        (["search", "--seed", "one"], "integer"),
    ],
)
def test_wrong_usage_is_status_2_and_names_what_was_meant(
    words: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(words) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and text in shown.err and "Traceback" not in shown.err


def test_third_parties_are_quiet_unless_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def body(**values: object) -> None:
        warnings.warn("a library's own opinion", UserWarning, stacklevel=1)
        logging.getLogger("library").warning("more of it")

    monkeypatch.setattr(_main._edgemtl.commands["tasks"], "callback", body)
    assert main(["tasks"]) == 0
    assert capsys.readouterr().err == ""
    logging.disable(logging.NOTSET)
    with pytest.warns(UserWarning, match="opinion"):
        main(["tasks", "-v"])


@pytest.mark.parametrize("more", [[], ["-v"]])
def test_a_warning_of_an_engine_is_a_note_and_is_there_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    def body(**values: object) -> None:
        for text in ("it is built again", "it is built again", "it runs in FP32\x1b[2J"):
            warnings.warn(text, EngineWarning, stacklevel=1)

    monkeypatch.setattr(_main._edgemtl.commands["tasks"], "callback", body)
    assert main(["tasks", *more]) == 0
    assert capsys.readouterr().err == "note: it is built again\nnote: it runs in FP32\\x1b[2J\n"


def test_without_arguments_the_verbs_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    shown = capsys.readouterr()
    listed = shown.out + shown.err
    assert all(f"  {verb}" in listed for verb in ("search", "train", "export", "profile", "report", "run", "doctor"))


def test_every_kind_that_is_listed_may_stand_in_a_data_set(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tasks", "--format", "json"]) == 0
    assert {kind["name"] for kind in json.loads(capsys.readouterr().out)} == set(folder_kinds())


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["tasks"], "name"),
        (["tasks", "--data", "scenes"], "classes"),
        (["devices"], "precisions"),
        (["devices", "host"], "runtimes"),
        (["targets"], "block_precisions"),
    ],
)
def test_lists_are_json_and_tables(words: list[str], key: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--format", "json"]) == 0
    shown = capsys.readouterr()
    value = json.loads(shown.out)
    assert all(key in each for each in value) and value
    assert main(words) == 0
    table = capsys.readouterr().out
    assert all(each["name"] in table for each in value)


def test_doctor_names_what_is_missing_with_its_install_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("edgemtl.cli.doctor.version_of", lambda package: None if package == "torchjd" else "1.0")
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "pip install 'edgemtl[torchjd]'" in shown and "edgemtl[openvino]" not in shown
    assert main(["doctor", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["extras"]["torchjd"] is None
    assert found["disks"]["cache"]["free_bytes"] > 0


def test_names_of_a_stranger_are_text_and_no_markup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles/odd.yaml").write_text(
        "schema: edgemtl.device/1\nname: odd\ntitle: '[red]board[/red] [/] [link=x]'\nkind: board\n"
        "precisions: [int8]\nruntimes: [{name: onnxruntime, precisions: [int8]}]\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["devices"]) == 0
    assert "[red]board[/red] [/] [link=x]" in capsys.readouterr().out
