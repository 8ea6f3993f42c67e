from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from time import process_time

import pytest

from edgemtl.environment import CPU_FLAGS, PROCESSOR_CLASSES, environment, processor_class


def test_environment_is_json_and_names_versions() -> None:
    found = environment()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["packages"]["numpy"] == version("numpy")
    assert found["cpu"]["threads"] == os.cpu_count()
    assert found["time_utc"].endswith("+00:00")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("sse4_2 avx avx2 fma", "avx2"),
        ("avx2 avx512f avx512bw", "avx2"),
        ("avx2 avx_vnni", "avx-vnni"),
        ("avx2 avx512f avx_vnni avx512_vnni", "avx512-vnni"),
        ("avx2 avx512f avx512_vnni amx_tile amx_bf16", "avx512-vnni"),
        ("avx2 avx512f avx512_vnni amx_tile amx_int8", "amx"),
        ("fp asimd", "arm"),
        ("fp asimd asimdhp asimddp i8mm", "arm-dot"),
        ("sse4_2 avx", "other"),
        ("", "other"),
    ],
)
def test_a_processor_is_of_the_best_class_that_its_flags_tell(flags: str, expected: str) -> None:
    assert processor_class(flags.split()) == expected


def test_the_environment_names_the_class_of_its_own_flags() -> None:
    cpu = environment()["cpu"]
    assert cpu["class"] == processor_class(cpu["flags"])
    assert {flag for flag in PROCESSOR_CLASSES.values() if flag} <= {*CPU_FLAGS}


def test_environment_imports_nothing_heavy() -> None:
    code = (
        "import sys; from edgemtl.environment import environment; environment(); "
        "print([m for m in ('torch', 'numpy', 'onnx', 'onnxruntime', 'openvino') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_environment_is_fast() -> None:
    environment()
    start = process_time()  # that of this process: another one's work does not count
    environment()
    assert process_time() - start < 0.05


def _git(folder: Path, *arguments: str) -> str:
    fingerprint = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "init.defaultBranch=main"]
    done = subprocess.run(["git", *fingerprint, *arguments], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    _git(folder, "init")
    (folder / "file").write_text("x")
    _git(folder, "add", "file")
    _git(folder, "commit", "-m", "first")
    return folder


def test_commit_of_the_working_directory(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = repository / "deep" / "er"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    assert environment()["git_commit"] == _git(repository, "rev-parse", "HEAD")


@pytest.mark.parametrize("how", ["packed", "detached", "worktree"])
def test_commit_is_found_in_every_layout(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    position = repository
    if how == "packed":
        _git(repository, "pack-refs", "--all")
        assert not (repository / ".git/refs/heads/main").exists()
    elif how == "detached":
        _git(repository, "checkout", "--detach")
    else:
        position = tmp_path / "second"
        _git(repository, "worktree", "add", "-b", "other", str(position))
    monkeypatch.chdir(position)
    assert environment()["git_commit"] == _git(repository, "rev-parse", "HEAD")


def test_no_repository_is_no_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert environment()["git_commit"] is None
