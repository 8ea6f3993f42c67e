from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = {"docs", "test"}
"""Extras with what the package is worked on with."""
SHARED = ("nas", "export", "profiles")
DISTRIBUTIONS = {
    "PIL": "pillow",
    "elpv_dataset": "elpv-dataset",
    "sklearn": "scikit-learn",
    "tensorrt_rtx": "tensorrt-rtx",
    "torch_pruning": "torch-pruning",
    "yaml": "pyyaml",
}
"""Distributions that are called otherwise than what they install."""
FROM_SHIPPED_FILES = """
import edgemtl, sys
from edgemtl.cli import main
from edgemtl.data.scenes import ScenesSource
from edgemtl.devices import device_names
from edgemtl.spaces import load_space, space_names
print(edgemtl.__file__)
assert {"cnn", "mobilenetv2"} <= set(space_names()) and "host" in device_names(), (space_names(), device_names())
assert load_space("cnn", ScenesSource.tasks).size == (192, 256)
sys.exit(main(["devices"]))
"""


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]  # type: ignore[no-any-return]


def bare(requirement: str) -> str:
    return re.split(r"[\s\[<>=!~;]", requirement)[0].lower()


def opened_by_name(node: ast.AST) -> list[str]:
    """The package that `importlib.resources.files("NAME")` or `import_module("NAME")` opens."""
    if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
        return []
    called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
    return [str(node.args[0].value)] if called in ("files", "import_module") else []


def imported() -> dict[str, set[str]]:
    """Distribution by what the package imports, with the files that do."""
    found: dict[str, set[str]] = {}
    for file in (ROOT / "edgemtl").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += opened_by_name(node)
            for top in {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"edgemtl"}:
                found.setdefault(DISTRIBUTIONS.get(top, top), set()).add(str(file.relative_to(ROOT)))
    return found


def declared() -> set[str]:
    """What the package itself may import: not what its tests and its documentation are made with."""
    optional = {extra: wanted for extra, wanted in project()["optional-dependencies"].items() if extra not in TOOLS}
    extras = [each for wanted in optional.values() for each in wanted]
    return {bare(each) for each in [*project()["dependencies"], *extras]} - {"edgemtl"}


def test_the_package_declares_what_it_imports_and_nothing_else() -> None:
    needed = imported()
    suites = needed.pop("pytest")  # who inherits a conformance suite runs it with pytest
    assert all(file.startswith("edgemtl/testing/") for file in suites)
    assert needed.pop("tensorrt") == {"edgemtl/runtime/tensorrt/session.py"}  # JetPack brings it, to boards alone
    assert {name: files for name, files in needed.items() if name not in declared()} == {}
    assert declared() - set(needed) == set()


def test_core_dependencies_and_extras_do_not_repeat_each_other() -> None:
    core = {bare(each) for each in project()["dependencies"]}
    extras = project()["optional-dependencies"]
    singles = {bare(each) for extra in set(extras) - {"all", "test"} for each in extras[extra]}
    assert core & singles == set()


def test_every_dependency_has_its_exact_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if line and not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][A-Za-z0-9.]*", line) for line in pinned)
    names = {re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in pinned}
    wanted = {bare(each) for extra in project()["optional-dependencies"].values() for each in extra}
    wanted |= {bare(each) for each in project()["dependencies"]}
    assert wanted - names - {"edgemtl"} == set()


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("edgemtl-*.whl"))


@pytest.fixture(scope="session")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as file:
        file.extractall(folder)
    return folder


def shipped_files() -> Iterator[str]:
    for folder in SHARED:
        for file in (ROOT / folder).rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                yield str(file.relative_to(ROOT))


def test_the_wheel_holds_the_code_and_the_folders_beside_it(unpacked: Path) -> None:
    held = {str(file.relative_to(unpacked)) for file in unpacked.rglob("*") if file.is_file()}
    assert {f"edgemtl/share/{name}" for name in shipped_files()} <= held
    assert {"edgemtl/share/nas/cnn.yaml", "edgemtl/share/profiles/host.yaml", "edgemtl/py.typed"} <= held
    code = {str(file.relative_to(ROOT)) for file in (ROOT / "edgemtl").rglob("*.py")}
    assert code <= held
    assert {name.partition("/")[0] for name in held if ".dist-info/" not in name} == {"edgemtl"}


def test_the_wheel_says_what_it_is(unpacked: Path) -> None:
    info = next(unpacked.glob("edgemtl-*.dist-info"))
    metadata = (info / "METADATA").read_text(encoding="utf-8")
    version = re.search(r'__version__ = "(.+)"', (ROOT / "edgemtl/version.py").read_text(encoding="utf-8"))
    assert version and f"\nVersion: {version[1]}\n" in metadata
    assert "\nLicense-Expression: Apache-2.0\n" in metadata
    assert "edgemtl = edgemtl.cli:main" in (info / "entry_points.txt").read_text(encoding="utf-8")
    assert (info / "licenses/LICENSE").is_file()


def test_the_wheel_finds_its_own_folders_away_from_the_checkout(unpacked: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(unpacked), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, "-c", FROM_SHIPPED_FILES]
    done = subprocess.run(command, cwd=tmp_path, env=environment, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.splitlines()[0]).is_relative_to(unpacked)
    assert "jetson-orin-nano" in done.stdout


@pytest.mark.slow
def test_the_wheel_works_in_an_environment_of_its_own(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "venv"], cwd=tmp_path, check=True)
    pip = [str(tmp_path / "venv/bin/pip"), "install", "-q", "-c", str(ROOT / "constraints.txt"), str(wheel)]
    subprocess.run(pip, cwd=tmp_path, check=True)
    environment = {"PATH": f"{tmp_path}/venv/bin:/usr/bin:/bin", "HOME": str(tmp_path), "OMP_NUM_THREADS": "2"}
    small = ["--size", "32x32", "--images", "8", "--steps", "2", "--batch", "2", "--sizes", "1"]
    for words in (["doctor"], ["targets"], ["train", *small, "--out", "runs/small"]):
        done = subprocess.run(
            ["edgemtl", *words], cwd=tmp_path, env=environment, text=True, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs/small/supernet.safetensors").is_file()
