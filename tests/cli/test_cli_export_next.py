"""The command that an export says comes next can be run on what it wrote."""

from __future__ import annotations

from pathlib import Path

import pytest
from report_data import manifest_content

from edgemtl.bundle import Manifest
from edgemtl.cli.export import _next
from edgemtl.cli.following import profile_command
from edgemtl.devices import new_device


def test_a_project_for_an_fpga_alone_is_reported_and_not_profiled(tmp_path: Path) -> None:
    manifest = Manifest.model_validate(manifest_content(tmp_path))
    project = manifest.targets["openvino"].model_copy(update={"runtime": "hls4ml", "folder": "engines/hls"})
    alone = manifest.model_copy(update={"targets": {"hls": project}})
    both = manifest.model_copy(update={"targets": {**manifest.targets, "hls": project}})
    hint = "edgemtl report b; the vendor's tools go on in b/engines/hls"
    assert _next(alone, Path("b"), "bundle") == hint
    assert _next(both, Path("b"), "bundle") == _next(manifest, Path("b"), "bundle") == "edgemtl profile b"
    assert _next(alone, Path("b"), "plain") == "b/README.md says how to open it"


def test_what_is_for_a_board_is_profiled_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = Manifest.model_validate(manifest_content(tmp_path))
    engine = manifest.targets["openvino"]

    def following(device: str) -> str:
        target = engine.model_copy(update={"device": device})
        return profile_command(manifest.model_copy(update={"targets": {"openvino": target}}), Path("b"))

    assert following("host") == "edgemtl profile b"
    assert following("jetson-orin-nano") == "edgemtl profile b --device ssh://USER@BOARD"
    path = new_device("my-pi", "raspberry-pi-5")
    path.write_text(path.read_text().replace("#>reach:", "reach:"))
    assert following("my-pi") == "edgemtl profile b --device my-pi"
