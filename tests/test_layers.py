from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from edgemtl.tasks import KINDS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "edgemtl"
TORCH = {"cli", "testing", "export", "nas", "own", "targets", "train", "models"}
LONGEST_FUNCTION = 60


def contracts(kind: str) -> list[dict[str, Any]]:
    """The contracts of import-linter of one type."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    return [contract for contract in config["contracts"] if contract["type"] == kind]


def floor_names() -> set[str]:
    """The package's modules and packages of the first level."""
    entries = [path for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    return {path.stem for path in entries} - {"__init__", "__main__"}


def sources() -> Iterator[tuple[str, ast.Module]]:
    """Every module by its dotted name; a package has the name of its folder."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), ast.parse(path.read_text())


def public_names() -> dict[str, set[str]]:
    """The rooms: packages below `edgemtl` whose `__init__` offers something, with what they offer."""
    assignments = {
        path.parent: node.value
        for path in PACKAGE.rglob("*/__init__.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    }
    return {".".join(room.relative_to(ROOT).parts): set(ast.literal_eval(value)) for room, value in assignments.items()}


def test_every_contract_of_the_house_is_kept() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert re.search(r"Contracts: \d+ kept, 0 broken", done.stdout)


def test_every_module_has_its_floor() -> None:
    (house,) = [contract for contract in contracts("layers") if contract["containers"] == ["edgemtl"]]
    assert floor_names() == {name for layer in house["layers"] for name in re.split(r"\s*[:|]\s*", layer)}


def test_no_floor_up_to_the_data_may_see_torch() -> None:
    (board,) = [contract for contract in contracts("forbidden") if "torch" in contract["forbidden_modules"]]
    assert board["source_modules"] == sorted(f"edgemtl.{name}" for name in floor_names() - TORCH)


def test_every_room_is_entered_through_its_door() -> None:
    guards = [
        (expression.removesuffix(".*"), contract["allowed_importers"])
        for contract in contracts("protected")
        for expression in contract["protected_modules"]
    ]
    rooms = public_names()
    for module in {name for name, _ in sources()} - set(rooms):
        room = max((room for room in rooms if module.startswith(f"{room}.")), key=len, default=None)
        importers = [allowed for prefix, allowed in guards if f"{module}.".startswith(f"{prefix}.")]
        assert room is None or [room] in importers, f"{module} may be imported past {room}/__init__.py"


def import_graph(trees: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    """For each module those that it imports anywhere, in functions and under `TYPE_CHECKING` too."""
    graph: dict[str, set[str]] = {}
    for module, tree in trees.items():
        names: set[str] = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                of_package = {f"{node.module}.{alias.name}" for alias in node.names}
                names |= of_package & trees.keys() or {str(node.module)}
        graph[module] = names & trees.keys() - {module}
    return graph


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other, directly or through others: Tarjan's strongly connected components."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for other in graph[module]:
            if other not in order:
                visit(other)
            if other in stack:
                lowest[module] = min(lowest[module], lowest[other])
        if lowest[module] == order[module]:
            start = stack.index(module)
            groups.append(sorted(stack[start:]))
            del stack[start:]

    for module in graph:
        if module not in order:
            visit(module)
    return [group for group in groups if len(group) > 1]


def test_no_file_imports_one_that_imports_it() -> None:
    """Not in functions, for types or through others either."""
    assert circles(import_graph(dict(sources()))) == []


def test_a_circle_of_imports_is_seen() -> None:
    texts = {
        "p": "",
        "p.a": "from p.b import f",
        "p.b": "def f():\n    from p import c",
        "p.c": "if TYPE_CHECKING:\n    import p.a",
        "p.d": "import p.a, os",
    }
    assert circles(import_graph({name: ast.parse(text) for name, text in texts.items()})) == [["p.a", "p.b", "p.c"]]


def test_no_module_is_called_like_a_thing_that_its_package_offers() -> None:
    """Such a thing stands in the module's place once the package is imported."""
    modules = {name for name, _ in sources()}
    for room, names in public_names().items():
        assert not modules & {f"{room}.{name}" for name in names}


def test_no_room_above_the_tasks_decides_by_the_kind_of_a_task() -> None:
    """A kind is asked (`kind_of(task)`); nobody compares its name or keeps a table of kinds."""
    names = set(KINDS.names())
    deciding = {
        f"{module}: {ast.unparse(node)}"
        for module, tree in sources()
        if not module.startswith("edgemtl.tasks")
        for node in ast.walk(tree)
        if decides_by_kind(node, names)
    }
    assert deciding == set()


def decides_by_kind(node: ast.AST, names: set[str]) -> bool:
    """Whether a comparison, a look-up or a table is by the kind of a task."""
    sides: list[ast.expr] = []
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        literals = {part.value for each in sides for part in ast.walk(each) if isinstance(part, ast.Constant)}
        if literals & names and any(ast.unparse(each).endswith("kind") for each in sides):
            return True
    elif isinstance(node, ast.Subscript):
        sides = [node.slice]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "get":
        sides = node.args[:1]
    elif isinstance(node, ast.Dict):
        return len(names & {key.value for key in node.keys if isinstance(key, ast.Constant)}) > 4
    return any(ast.unparse(each).endswith(("task.kind", "spec.kind")) for each in sides)


@pytest.mark.parametrize(
    "source", ["task.kind == 'x'", "kind in ('depth', 'x')", "TABLE[task.kind]", "fill.get(spec.kind, 0)"]
)
def test_a_decision_by_kind_is_seen(source: str) -> None:
    names = set(KINDS.names())
    assert any(decides_by_kind(node, names) for node in ast.walk(ast.parse(source)))


def test_kinds_are_asked_without_torch_but_for_what_is_learnt() -> None:
    script = """
import sys
import edgemtl.data, edgemtl.report, edgemtl.runtime
from edgemtl.tasks import all_kinds
kinds = all_kinds()
assert "torch" not in sys.modules, "torch"
assert all(kind.learning() for kind in kinds)
assert "torch" in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_no_function_is_longer_than_a_screen() -> None:
    lines = {
        f"{module}.{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for module, tree in sources()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: count for name, count in lines.items() if count > LONGEST_FUNCTION} == {}
