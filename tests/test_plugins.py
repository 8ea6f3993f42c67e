"""Entries found by name, with packages installed for real in a folder of `sys.path`."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest
from plugged import install

from edgemtl.errors import UserError
from edgemtl.plugins import Registry, load_user_function
from edgemtl.tasks import Kind
from edgemtl.units import Quantity

GROUP = "edgemtl.tests.tools"
PACKAGE = Path(__file__).parents[1] / "edgemtl"
LOADERS = {"__import__", "entry_points", "eval", "exec", "import_module", "machinery", "pkgutil", "runpy", "util"}


def doubled(number: int) -> int:
    return 2 * number


def never() -> Callable[[int], int]:
    raise AssertionError("a listing loads nothing")


TOOLS = Registry[Callable[[int], int]]("tool", GROUP, {"double": lambda: doubled, "unwanted": never})


def test_a_name_is_found_built_in_and_plugged_in(site: Path) -> None:
    install(site, GROUP, "triple = triple_tool:triple", "def triple(number):\n    return 3 * number\n")
    assert TOOLS.names() == ["double", "triple", "unwanted"]
    assert (TOOLS.call("double", 4), TOOLS.call("triple", 4), TOOLS.find("triple")(5)) == (8, 12, 15)


def test_a_plug_in_replaces_nothing_built_in(site: Path) -> None:
    install(site, GROUP, "double = double_tool:wrong", "def wrong(number):\n    return 0\n")
    assert TOOLS.names() == ["double", "unwanted"]
    assert TOOLS.call("double", 4) == 8


def test_an_unknown_name_is_told_the_nearest(site: Path) -> None:
    install(site, GROUP, "triple = triple_tool:triple")
    with pytest.raises(UserError, match="unknown tool 'tripel': did you mean triple") as error:
        TOOLS.find("tripel")
    assert "allowed: double, triple, unwanted" in str(error.value)


@pytest.mark.parametrize(
    ("module", "reason"),
    [
        ("import a_module_that_is_missing", "ModuleNotFoundError: .*missing"),
        ("raise RuntimeError('two\\nlines')", "RuntimeError: two lines"),
        ("import sys\nsys.exit(0)", "SystemExit: 0"),
        ("nothing = 1", "AttributeError: .*'triple'"),
        ("def triple(", "SyntaxError: "),
    ],
)
def test_what_a_plug_in_raises_when_it_is_loaded_names_it_on_one_line(site: Path, module: str, reason: str) -> None:
    install(site, GROUP, "triple = triple_tool:triple", module)
    expected = rf"^tool 'triple', which triple_tool:triple brings, cannot be loaded \({reason}.*\): mend or uninstall"
    for ask in (lambda: TOOLS.find("triple"), lambda: TOOLS.call("triple", 1)):
        with pytest.raises(UserError, match=expected) as error:
            ask()
        assert "\n" not in str(error.value)


def test_what_a_plug_in_raises_when_it_is_called_names_it_but_for_errors_of_ours(site: Path) -> None:
    install(site, GROUP, "triple = triple_tool:triple", "def triple(number):\n    return number.third\n")
    with pytest.raises(UserError, match=r"'triple', which triple_tool:triple brings, fails \(AttributeError: .*third"):
        TOOLS.call("triple", 1)
    refuse = "from edgemtl.errors import UserError\n\ndef refuse(number):\n    raise UserError(f'{number} is odd')\n"
    install(site, GROUP, "refuse = refuse_tool:refuse", refuse)
    with pytest.raises(UserError, match=r"^3 is odd$"):
        TOOLS.call("refuse", 3)
    with pytest.raises(TypeError, match="unsupported operand"):
        TOOLS.call("double", {})  # type: ignore[arg-type]


def test_two_packages_that_bring_one_name_are_told_apart(site: Path) -> None:
    for module in ("triple_tool", "other_tool"):
        install(site, GROUP, f"triple = {module}:triple", "def triple(number):\n    return number\n")
    with pytest.raises(UserError, match="'triple' is brought by other_tool:triple and triple_tool:triple: uninstall"):
        TOOLS.find("triple")


def test_an_entry_of_another_class_is_refused(site: Path) -> None:
    numbers = Registry[int]("number", GROUP, {"one": lambda: 1}, instance_of=int)
    install(site, GROUP, "two = number_two:two", "two = '2'\n")
    install(site, GROUP, "three = number_three:three", "three = 3\n")
    assert (numbers.find("one"), numbers.find("three")) == (1, 3)
    with pytest.raises(UserError, match=r"cannot be loaded .*it is a str, not a int"):
        numbers.find("two")


def test_a_plug_in_gives_what_its_registry_promises(site: Path) -> None:
    class Shape(Protocol):
        colour: str

        @property
        def area(self) -> float: ...

        def draw(self) -> None: ...

    shapes = Registry[Callable[[], Shape]]("shape", GROUP, {}, returns=Shape)
    early = "    @property\n    def area(self):\n        raise MemoryError('asked too early')\n"
    install(site, GROUP, "square = square_tool:Square", f"class Square:\n    colour = 'red'\n    draw = print\n{early}")
    assert type(shapes.call("square")).__name__ == "Square"
    install(site, GROUP, "bare = bare_tool:Bare", "class Bare:\n    area = 1.0\n")
    with pytest.raises(UserError, match=r"'bare', which .* fails \(TypeError: it gives a Bare without colour, draw\)"):
        shapes.call("bare")
    install(site, GROUP, "flat = flat_tool:flat", "flat = 3\n")
    with pytest.raises(UserError, match=r"cannot be loaded \(TypeError: it is a int, not a function\)"):
        shapes.find("flat")
    numbers = Registry[Callable[[], int]]("number", GROUP, {}, returns=int)
    install(site, GROUP, "word = word_tool:word", "def word():\n    return 'two'\n")
    with pytest.raises(UserError, match=r"fails \(TypeError: it gives a str, not a int\)"):
        numbers.call("word")


def test_an_object_is_whole_and_called_as_it_is_found(site: Path) -> None:
    kind = "from edgemtl.units import Quantity\nother = Quantity('flops', {}, (), str)\n"
    quantities = Registry[Quantity]("quantity", GROUP, {}, instance_of=Quantity)
    install(site, GROUP, "mine = other_quantity:other", kind)
    with pytest.raises(UserError, match=r"\(TypeError: it calls itself 'flops', not 'mine'\)"):
        quantities.find("mine")
    kinds = Registry[Kind]("task kind", GROUP, {}, instance_of=Kind)
    bare = "from edgemtl.tasks import Kind\nclass Bare(Kind):\n    name = 'bare'\n"
    install(site, GROUP, "bare = bare_kind:bare", f"{bare}Bare.__abstractmethods__ = frozenset()\nbare = Bare()\n")
    with pytest.raises(UserError, match=r"\(TypeError: it is a Bare without loss, metrics, postprocess\)"):
        kinds.find("bare")


def test_a_function_of_the_user_is_found_in_the_working_directory(site: Path) -> None:
    (site / "her_code.py").write_text("def make():\n    return 7\n")
    assert load_user_function("her_code:make")() == 7


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("her_code", "names no function: write package.module:function"),
        ("her code:make", "names no function"),
        ("her_code:mak", "function in module her_code: 'mak': did you mean make"),
        ("no_code:make", "there is no Python module 'no_code' in the working directory or installed"),
        ("broken_code:make", "importing broken_code failed: ZeroDivisionError: division by zero"),
        ("needy_code:make", "importing needy_code failed: ModuleNotFoundError: .*not_there"),
        ("leaving_code:make", "importing leaving_code failed: SystemExit: 5"),
    ],
)
def test_a_function_that_cannot_be_found_is_refused(site: Path, spec: str, message: str) -> None:
    (site / "her_code.py").write_text("def make():\n    return 7\n")
    (site / "broken_code.py").write_text("1 / 0\n")
    (site / "needy_code.py").write_text("import not_there\n")
    (site / "leaving_code.py").write_text("raise SystemExit(5)\n")
    with pytest.raises(UserError, match=message):
        load_user_function(spec)


def loaders_of(tree: ast.Module) -> set[str]:
    """What a module uses that can turn a string into code."""
    names = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(alias.name for alias in node.names)}
        elif isinstance(node, ast.Import):
            names |= {part for alias in node.names for part in alias.name.split(".")}
    return names & LOADERS


def test_no_module_is_loaded_by_a_string_outside_the_plug_ins() -> None:
    trees = {path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}
    loaders = {name: used for name, tree in trees.items() if (used := loaders_of(tree))}
    assert loaders == {"plugins.py": {"entry_points", "import_module"}}


@pytest.mark.parametrize(
    "text",
    [
        "import importlib.util",
        "from importlib import import_module as load",
        "from importlib.metadata import entry_points",
        "def late():\n    return __import__('os')",
        "eval('1')",
    ],
)
def test_a_module_that_loads_by_a_string_would_be_seen(text: str) -> None:
    assert loaders_of(ast.parse(text))
    assert not loaders_of(ast.parse("from importlib.metadata import version\nre.compile('a')\nmodel.eval()"))
