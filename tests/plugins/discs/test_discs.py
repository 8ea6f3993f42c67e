"""A data set of another package: found by its name, trained on and searched for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from discs_source import Discs
from plugged import install

from edgemtl.data import Source, source_names
from edgemtl.testing import SourceConformance
from edgemtl.testing.landscape import write_space


class TestDiscs(SourceConformance):
    @pytest.fixture
    def opened(self) -> Callable[[tuple[int, int]], Source]:
        return Discs


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with a small space, and the plug-in installed."""
    folder, site = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("site")
    module = (Path(__file__).parent / "discs_source.py").read_text()
    install(site, "edgemtl.sources", "discs = discs_source:Discs", module)
    write_space(folder, "small")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        patch.chdir(folder)
        yield folder


def test_it_is_found_by_its_name_trained_on_and_searched_for(command: Callable[..., tuple[int, Any, str]]) -> None:
    assert "discs" in source_names()
    status, tasks, errors = command("tasks", "--data", "discs")
    assert status == 0, errors
    assert "near" in str(tasks)
    status, _, errors = command("train", "--space", "small", "--data", "discs", "--steps", "2", "--out", "trained")
    assert status == 0, errors
    status, result, errors = command(
        *(
            "search",
            "--space",
            "small",
            "--data",
            "discs",
            "--budget",
            "80%FLOPs",
            "--evaluations",
            "2",
            "--finetune",
            "0",
        ),
        *("--supernet", "trained/supernet.safetensors", "--target", "tensorrt-rtx", "--out", "searched"),
    )
    assert status == 0, errors
    assert set(result["best"]["metrics"]) == {"depth", "near"}
    assert result["data"]["name"] == "discs"
