from __future__ import annotations

import ast
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from loopback import python_of

from edgemtl.profiling.remote.pack import agent_files, agent_zip, bootstrap_source

OLDEST = (3, 8)
VERSIONS = ("3.8", "3.9", "3.10", "3.11", "3.12", "3.13")
LARGEST_BYTES = 300_000
BESIDE_PYTHON = {"agent", "edgemtl", "numpy", "onnxruntime", "openvino", "safetensors", "tensorrt"}
NEWER = {
    "removeprefix", "removesuffix", "is_relative_to", "file_digest", "readlink", "with_stem", "hardlink_to",
    "bit_count", "pairwise", "batched", "to_thread",
}  # fmt: skip
"""Names of the standard library's methods and functions that Python 3.8 lacks."""
NOT_EVERYWHERE = {"numpy", "safetensors"}
SOURCES = {name: text for name, text in agent_files().items() if text}


def test_it_is_one_small_file_that_is_always_the_same() -> None:
    assert len(agent_zip()) < LARGEST_BYTES
    assert set(zipfile.ZipFile(io.BytesIO(agent_zip())).namelist()) == set(agent_files())
    agent_zip.cache_clear()
    first = agent_zip()
    agent_zip.cache_clear()
    assert agent_zip() == first


def test_it_measures_by_the_package_s_own_lines() -> None:
    root = Path(__file__).parents[3]
    for name in ("profiling/turns", "profiling/watch", "profiling/sensors", "runtime/backends/onnxruntime"):
        assert SOURCES[f"edgemtl/{name}.py"] == (root / f"edgemtl/{name}.py").read_text()


def test_it_brings_nothing_that_a_board_lacks() -> None:
    allowed = BESIDE_PYTHON | set(sys.stdlib_module_names)
    for name, text in SOURCES.items():
        assert imported(ast.parse(text)) <= allowed, name


def imported(tree: ast.AST) -> set[str]:
    """Packages that a source imports, but for types."""
    names: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module).split(".")[0])
        names |= imported(node)
    return names


@pytest.mark.parametrize("name", sorted(SOURCES))
def test_python_3_8_can_read_it(name: str) -> None:
    tree = ast.parse(SOURCES[name], feature_version=OLDEST)
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    used |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert not used & NEWER
    strict = [call for call in ast.walk(tree) if isinstance(call, ast.Call) and ast.unparse(call.func) == "zip"]
    assert not any(call.keywords for call in strict), "zip(strict=) came with Python 3.10"


@pytest.mark.parametrize("version", VERSIONS)
def test_every_python_imports_all_of_it(version: str, tmp_path: Path) -> None:
    """But for what needs numpy, which not each of them has here: `test_python_3_8.py` runs that."""
    python = python_of(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    (tmp_path / "agent.pyz").write_bytes(agent_zip())
    modules = [
        name[:-3].replace("/", ".")
        for name, text in SOURCES.items()
        if name != "__main__.py" and not name.endswith("__init__.py") and not needs(name) & NOT_EVERYWHERE
    ]
    assert {"agent.relay", "edgemtl.profiling.watch", "edgemtl.environment"} <= set(modules)
    script = f"import sys; sys.path.insert(0, {str(tmp_path / 'agent.pyz')!r}); import {', '.join(modules)}"
    done = subprocess.run([python, "-I", "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def needs(name: str, seen: frozenset[str] = frozenset()) -> set[str]:
    """Packages that a packed module imports when it is imported, itself or through others."""
    names: set[str] = set()
    for node in ast.parse(SOURCES[name]).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
            inner = f"{node.module.replace('.', '/')}.py"
            if inner in SOURCES and inner not in seen:
                names |= needs(inner, seen | {name})
    return names


def test_an_old_python_is_told_so(tmp_path: Path) -> None:
    for version in ("3.7", "3.6"):
        python = next(Path.home().glob(f".pyenv/versions/{version}.*/bin/python"), None)
        if python is not None:
            done = subprocess.run([str(python), "-c", bootstrap_source(), "name", "0"], capture_output=True, text=True)
            assert done.stderr == f"edgemtl: Python {version} is too old, the agent needs 3.8 or newer\n"
            return
    pytest.skip("no Python older than 3.8 on this machine")
