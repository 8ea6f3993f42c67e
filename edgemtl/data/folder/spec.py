"""Reading the YAML file that describes a user's own data set, with line numbers for every mistake."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, Field, ValidationError

from edgemtl.data.folder.models import Folders, FolderSpec, Fractions, folder_kinds
from edgemtl.data.folder.problems import Problems
from edgemtl.files.yaml import read_yaml
from edgemtl.tasks import KINDS, Exact, FileSpec, TaskSpec, find_kind, relative

__all__ = ["read_spec"]

_LIMIT_BYTES = 2**20
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
M = TypeVar("M", bound=BaseModel)


class _Root(Exact):
    images: Any
    split: Any = None
    tasks: dict[str, Any] = Field(min_length=1)


class _Document:
    """The YAML file's values with the lines that they stand on."""

    def __init__(self, path: Path, problems: Problems) -> None:
        self.problems = problems
        self.file = path.name
        self.node, self.value = read_yaml(path, "data set", _LIMIT_BYTES)
        self._entries: dict[int, dict[str, tuple[yaml.Node, yaml.Node]]] = {}

    def line(self, position: tuple[str | int, ...]) -> int:
        """Line of the deepest part of a key path that exists."""
        node, line = self.node, 1
        for part in position:
            child = None
            if isinstance(node, yaml.MappingNode):
                child = self._listed(node).get(str(part))
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                child = node.value[part], node.value[part]
            if child is None:
                break
            line, node = child[0].start_mark.line + 1, child[1]
        return line

    def _listed(self, node: yaml.MappingNode) -> Mapping[str, tuple[yaml.Node, yaml.Node]]:
        """A mapping's keys and values by the keys' texts, listed once: every key may be a mistake."""
        if id(node) not in self._entries:
            plain = [(key, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]
            self._entries[id(node)] = {key.value: (key, value) for key, value in plain}
        return self._entries[id(node)]

    def add(self, position: tuple[str | int, ...], text: str) -> None:
        where = ".".join(str(part) for part in position)
        self.problems.add(f"{self.file} line {self.line(position)}: {where + ': ' if where else ''}{text}")

    def model(self, kind: type[M], value: Any, at: tuple[str | int, ...]) -> M | None:
        """The value as a model; every mistake becomes a problem with its line."""
        if not isinstance(value, Mapping):
            self.add(at, f"keys and values are needed here, not {_short(value)}: {_keys(kind)}")
            return None
        try:
            return kind.model_validate(dict(value))
        except ValidationError as error:
            for mistake in error.errors(include_url=False):
                self.add((*at, *mistake["loc"]), _explain(kind, mistake))
            return None


def _keys(kind: type[BaseModel]) -> str:
    needed = [name for name, field in kind.model_fields.items() if field.is_required()]
    other = [name for name, field in kind.model_fields.items() if not field.is_required()]
    return f"needed are {', '.join(needed)}" + (f", allowed too {', '.join(other)}" if other else "")


def _short(value: Any) -> str:
    """A value for an error: scalars as written, collections only by their type (they can be huge)."""
    if isinstance(value, str):
        return repr(value if len(value) <= 60 else value[:57] + "...")
    if isinstance(value, int) and value.bit_length() > 64:
        return "a huge number"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    return "nothing" if value is None else repr(value)[:60]


def _explain(kind: type[BaseModel], mistake: Any) -> str:
    """One of pydantic's findings in this project's words."""
    name = str(mistake["loc"][-1]) if mistake["loc"] else ""
    if mistake["type"] == "extra_forbidden":
        near = difflib.get_close_matches(name, list(kind.model_fields), n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}? " if near else ""
        return f"unknown key: {hint}{_keys(kind)}"
    if mistake["type"] == "missing":
        return f"this key is missing: {_keys(kind)}"
    if mistake["type"] == "value_error":
        return str(mistake["ctx"]["error"])
    text = str(mistake["msg"]).removeprefix("Input should be ").removeprefix("a valid ")
    return f"{_short(mistake['input'])} cannot be used: allowed is {text}"


def read_spec(path: Path) -> FolderSpec:
    """The description in a YAML file; raises one `UserError` with every mistake, its line, and what is allowed."""
    problems = Problems(str(path))
    document = _Document(path, problems)
    root = document.model(_Root, document.value, ())
    problems.stop()
    assert root is not None
    images, split = _read_images(document, root)
    tasks = {name: task for name, value in root.tasks.items() if (task := _read_task(document, name, value))}
    if isinstance(images, str):
        for name, task in tasks.items():
            if isinstance(task, FileSpec) and "{split}" in task.files:
                document.add(
                    ("tasks", name, "files"), "{split} needs a folder of images per split: write images: {train: ...}"
                )
    problems.stop()
    assert images is not None
    assert split is not None
    return FolderSpec(images, split, tasks)


def _read_images(document: _Document, root: _Root) -> tuple[Folders | str | None, Fractions | None]:
    fractions = Fractions(train=0.8, validation=0.1, test=0.1)
    if not isinstance(root.images, str):
        if root.split is not None:
            document.add(("split",), "images already has a folder per split: remove one of the two")
        return document.model(Folders, root.images, ("images",)), fractions
    try:
        relative(root.images)
    except ValueError as error:
        document.add(("images",), str(error))
    return root.images, fractions if root.split is None else document.model(Fractions, root.split, ("split",))


def _read_task(document: _Document, name: Any, value: Any) -> TaskSpec | None:
    at = ("tasks", name)
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name == "image":
        document.add(
            at, "a task's name has letters, digits and _, begins with a letter, has 32 at most and is not image"
        )
        return None
    kind = value.get("kind") if isinstance(value, Mapping) else None
    kinds = folder_kinds()
    if isinstance(kind, str) and kind in KINDS.names():
        find_kind(kind)  # one that cannot be loaded says why
    if not isinstance(kind, str) or kind not in kinds:
        given = "this key is missing" if kind is None else f"unknown kind {_short(kind)}"
        near = difflib.get_close_matches(str(kind), kinds, n=1, cutoff=0.5) if isinstance(kind, str) else []
        hint = f"did you mean {near[0]}? " if near else ""
        document.add((*at, "kind"), f"{given}: {hint}allowed: {', '.join(sorted(kinds))}")
        return None
    model = find_kind(kind).labels
    assert model is not None
    return document.model(model, value, at)
