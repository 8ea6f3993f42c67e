"""The agent as one file: `export/agent`, and the modules of this package that it imports, in a zip that Python runs.

The modules are those of the package, unchanged, so that a board draws samples, reads sensors and opens engines by the
same lines as this machine. A room's door is cut down to the names that packed modules import through it.
"""

from __future__ import annotations

import ast
import io
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from edgemtl.errors import UserError
from edgemtl.files.share import find_shared

__all__ = ["agent_files", "agent_zip", "bootstrap_source"]

ROOT = Path(__file__).resolve().parents[3]
BOOTSTRAP = "bootstrap.py"
EPOCH = (1980, 1, 1, 0, 0, 0)


@cache
def agent_zip() -> bytes:
    """The agent's zipapp; the same sources give the same bytes."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, text in sorted(agent_files().items()):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, text)
    return content.getvalue()


def bootstrap_source() -> str:
    """The program that receives the zipapp on a board."""
    return (_agent_folder() / BOOTSTRAP).read_text(encoding="utf-8")


def agent_files() -> dict[str, str]:
    """Everything in the zipapp, by path: sources, and doors of rooms."""
    own = {path.name: path.read_text(encoding="utf-8") for path in sorted(_agent_folder().glob("*.py"))}
    own.pop(BOOTSTRAP)
    files = {f"agent/{name}": text for name, text in own.items()}
    files["__main__.py"] = "from agent.main import main\n\nmain()\n"
    doors: dict[str, set[tuple[str, str]]] = {"edgemtl": set()}
    waiting = [text for text in own.values()]
    while waiting:
        for module, name in _imports(waiting.pop()):
            path = _module_path(module)
            if path.name == "__init__.py":
                provider = _provider(module, path, name)
                doors.setdefault(module, set()).update({(provider, name)} if provider != f"{module}.{name}" else ())
                module, path = provider, _module_path(provider)
            inside = path.relative_to(ROOT).as_posix()
            if inside not in files:
                files[inside] = path.read_text(encoding="utf-8")
                waiting.append(files[inside])
            for package in _packages(module):
                doors.setdefault(package, set())
    return {**files, **{f"{room.replace('.', '/')}/__init__.py": _door(names) for room, names in doors.items()}}


def _agent_folder() -> Path:
    main = find_shared("export", "agent/main.py")
    if main is None:
        raise UserError("the agent is missing from this installation (export/agent): install edgemtl again")
    return main.parent


def _imports(text: str) -> Iterator[tuple[str, str]]:
    """Modules of this package that a source imports anywhere, but for types, each with the name."""

    def visit(node: ast.AST) -> Iterator[tuple[str, str]]:
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            return
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "edgemtl":
            yield from ((str(node.module), alias.name) for alias in node.names)
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.startswith("edgemtl."))
        for child in ast.iter_child_nodes(node):
            yield from visit(child)

    return visit(ast.parse(text))


def _module_path(module: str) -> Path:
    base = ROOT.joinpath(*module.split("."))
    return base / "__init__.py" if base.is_dir() else base.with_suffix(".py")


def _provider(room: str, door: Path, name: str) -> str:
    """The module behind a room's door that has `name`: one of its own, or one that the door takes it from."""
    if _module_path(f"{room}.{name}").is_file():
        return f"{room}.{name}"
    return next(module for module, offered in _imports(door.read_text(encoding="utf-8")) if offered == name)


def _packages(module: str) -> list[str]:
    parts = module.split(".")[:-1]
    return [".".join(parts[: length + 1]) for length in range(len(parts))]


def _door(names: set[tuple[str, str]]) -> str:
    return "".join(f"from {module} import {name}\n" for module, name in sorted(names))
