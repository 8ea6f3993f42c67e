"""The folder of a search of a net of one's own: what may begin in it, and what it may be resumed with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from refusals import refused

from edgemtl.cli import main
from edgemtl.nas.precision.request import terms_of
from edgemtl.nas.precision.state import begin, check_terms
from edgemtl.nas.prune import NO_TUNING, FineTuning

OPTIONS = {"budgets": ("60%ms",), "floors": (), "threads": 1, "tuning": NO_TUNING}
PROPOSING = {"strategy": "random", "settings": {}, "seed": 3, "objectives": ()}


@pytest.mark.parametrize(
    ("begun", "changes", "named"),
    [
        ({}, {"budgets": ("50%ms",)}, "budgets"),
        ({}, {"floors": ("pose=2%",), "threads": 2}, "floors, threads"),
        ({}, {"tuning": FineTuning(5)}, "finetune"),
        ({}, {"preference": "pose=2"}, "preference"),
        ({"preference": "pose=2"}, {"preference": "pose=3"}, "preference"),
        ({}, PROPOSING, "seed, settings, strategy"),
        (PROPOSING, {"seed": 4}, "seed"),
        (PROPOSING, {"strategy": "tpe"}, "strategy"),
        (PROPOSING, {"settings": {"generations": "3"}}, "settings"),
        (PROPOSING, {"objectives": ("delta_m", "bytes")}, "objectives"),
        (PROPOSING, {"strategy": ""}, "seed, settings, strategy"),
    ],
)
def test_other_terms_than_a_run_was_begun_on_are_refused_before_its_net_is_known(
    tmp_path: Path, begun: dict[str, Any], changes: dict[str, Any], named: str
) -> None:
    options = {**OPTIONS, **begun}
    begin(tmp_path / "run", {**terms_of(options), "net_sha256": "0"}, resume=False)
    check_terms(tmp_path / "run", terms_of(options), resume=True)
    words = refused(lambda: check_terms(tmp_path / "run", terms_of({**options, **changes}), resume=True))
    assert words.endswith(f"was started with another {named}: resume it with the same, or choose another --out")
    assert "go on with --resume" in refused(lambda: check_terms(tmp_path / "run", terms_of(options), resume=False))


def test_a_folder_without_a_run_is_no_obstacle_and_one_of_anything_else_is(tmp_path: Path) -> None:
    terms = terms_of(OPTIONS)
    check_terms(tmp_path / "run", terms, resume=True)
    (tmp_path / "config.json").write_text('{"schema": "edgemtl.run/1", "seed": 0}')
    assert "another budgets, finetune, floors, schema" in refused(lambda: check_terms(tmp_path, terms, resume=True))
    (tmp_path / "config.json").write_text("[]")
    assert "is damaged" in refused(lambda: check_terms(tmp_path, terms, resume=True))


def test_the_command_line_refuses_another_seed_before_it_opens_the_net(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    begin(tmp_path / "run", {**terms_of({**OPTIONS, **PROPOSING}), "net_sha256": "0"}, resume=False)
    search = [
        "search",
        "gone.onnx",
        "--data",
        "photos",
        "--out",
        "run",
        "--resume",
        "--budget",
        "60%ms",
        "--threads",
        "1",
    ]
    for words, message in (
        (["--strategy", "random", "--seed", "4"], "run was started with another seed: resume it with the same"),
        (["--strategy", "tpe", "--seed", "3"], "run was started with another strategy: resume it with the same"),
        (["--strategy", "random", "--seed", "3"], "gone.onnx"),
    ):
        assert main([*search, *words]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
