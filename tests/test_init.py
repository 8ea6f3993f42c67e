"""What `import edgemtl` offers: each name is imported from its room when it is first used."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import edgemtl

PACKAGE = Path(edgemtl.__file__).parent
DOCUMENTED = re.search(r"```python\n(.*?)```", edgemtl.__doc__ or "", re.S)


def modules_after(code: str) -> set[str]:
    """Top names of all that Python has imported after some code."""
    code = f"{code}\nimport sys\nprint(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_every_name_is_there_and_listed() -> None:
    assert set(edgemtl.__all__) <= set(dir(edgemtl))
    for name in edgemtl.__all__:
        assert getattr(edgemtl, name) is getattr(edgemtl, name)
    with pytest.raises(AttributeError, match="module 'edgemtl' has no attribute 'serch'"):
        edgemtl.serch  # noqa: B018


def test_no_name_is_a_room_too() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert not rooms & set(edgemtl.__all__)


def test_the_package_imports_nothing_before_a_name_is_used() -> None:
    assert not modules_after("import edgemtl") & {"numpy", "onnx", "pydantic", "torch", "yaml"}


@pytest.mark.parametrize("name", ["Engine", "load_space", "open_source", "profile", "write_report"])
def test_what_runs_on_a_board_loads_no_torch(name: str) -> None:
    loaded = modules_after(f"import edgemtl\nedgemtl.{name}")
    assert "numpy" in loaded and "torch" not in loaded


def test_the_documented_calls_are_as_the_functions_take_them() -> None:
    assert DOCUMENTED is not None
    calls = [node for node in ast.walk(ast.parse(DOCUMENTED[1])) if isinstance(node, ast.Call)]
    bound = []
    for call in calls:
        if isinstance(call.func, ast.Attribute):
            keywords = {keyword.arg or "": keyword.value for keyword in call.keywords}
            inspect.signature(getattr(edgemtl, call.func.attr)).bind(*call.args, **keywords)
            bound.append(call.func.attr)
    assert sorted(bound) == ["ExportRequest", "SearchRequest", "export_run", "profile", "search", "write_report"]
