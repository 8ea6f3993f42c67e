from __future__ import annotations

from pathlib import Path

import pytest
from _runs import clear_outdated, is_current, size_of, supernet_hash

from edgemtl.data import open_source
from edgemtl.devices import load_device
from edgemtl.nas.runs import RunFolder, run_tasks
from edgemtl.runs import RunConfig
from edgemtl.spaces import load_space


def test_a_size_is_read_as_the_command_line_reads_it() -> None:
    assert size_of("96x128") == (96, 128)


def test_a_run_that_cannot_be_read_any_more_goes_with_what_was_made_from_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("first", "first-tuned", "firsthand", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"schema": "edgemtl.run/0"}')
    assert not is_current(RunFolder(tmp_path / "first"))
    clear_outdated(tmp_path / "first")
    assert {path.name for path in tmp_path.iterdir()} == {"firsthand", "other"}
    assert "begun anew" in capsys.readouterr().err


def test_a_folder_without_a_run_stays(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    clear_outdated(tmp_path / "first")
    assert (tmp_path / "first").is_dir()


def test_a_run_is_of_today_as_long_as_supernet_and_data_are(tmp_path: Path) -> None:
    source = open_source("scenes", (96, 128))
    space = load_space("cnn", source.tasks, source.size)
    config = RunConfig(
        space=space.name,
        fingerprint=space.fingerprint,
        size=source.size,
        data="scenes",
        data_fingerprint=source.fingerprint,
        tasks=run_tasks(source.tasks),
        target="onnxruntime",
        device=load_device("host"),
        strategy="none",
        budgets=(),
        floors=(),
        preference={},
        precisions={},
        seed=0,
        supernet_sha256=supernet_hash("cnn"),
    )
    changes = {"today": {}, "weights": {"supernet_sha256": "0" * 64}, "images": {"data_fingerprint": "another"}}
    for name, change in changes.items():
        RunFolder(tmp_path / name).create(config.model_copy(update=change))
    assert [name for name in changes if is_current(RunFolder(tmp_path / name))] == ["today"]
