"""Untrusted YAML, read with limits: nothing is executed, no alias bomb, no duplicate key.

The loader is PyYAML's safe one. A few hundred bytes of aliases stand for more values than any memory holds, so values
are counted as they would be written out; and a scalar that its own tag does not fit ends in the loader's own error,
with its line.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from edgemtl.errors import UserError
from edgemtl.files.disk import read_text
from edgemtl.files.json import INTEGER_DIGITS

__all__ = ["VALUES", "parse_yaml", "read_yaml"]

VALUES = 25_000
"""Values of a file, each alias counted as what it stands for: twice the longest list of classes that is allowed."""
DEPTH = 40
_UNFIT = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with limits."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._values = self._depth = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """A node and what it holds; an alias counts as much as what it stands for."""
        mark: yaml.Mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        before = self._values
        alias = self.check_event(yaml.AliasEvent)
        self._values, self._depth = self._values + 1, self._depth + 1
        if self._depth > DEPTH:
            raise _mistake(f"values are nested deeper than {DEPTH}", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if alias:
            if id(node) not in self._sizes:
                raise _mistake("an alias stands for what it is part of", mark)
            self._values += self._sizes[id(node)]
        else:
            self._sizes[id(node)] = self._values - before
        if self._values > VALUES:
            raise _mistake(f"there are more than {VALUES} values, aliases written out", mark)
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping; a key written twice would hide the first one."""
        node = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (first := lines.get((key.tag, key.value))) is not None:
                    twice = f"the key {key.value!r:.60} is there twice (first on line {first}): keep one"
                    raise _mistake(twice, key.start_mark)
                lines[key.tag, key.value] = key.start_mark.line + 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A value; one that its tag does not fit (a date without such a day), or that is too large, is refused."""
        try:
            value = super().construct_object(node, deep)
            if isinstance(value, str):
                value.encode()
        except yaml.YAMLError:
            raise
        except _UNFIT as error:
            kind = node.tag.rpartition(":")[2]
            given = repr(node.value[:40]) if isinstance(node, yaml.ScalarNode) else "this"
            raise _mistake(f"{given} is no {kind}: mend it, or put text in quotes", node.start_mark) from error
        if isinstance(value, int) and abs(value) >= 10**INTEGER_DIGITS:
            raise _mistake(f"a whole number of more than {INTEGER_DIGITS} digits", node.start_mark)
        return value


def parse_yaml(text: str) -> tuple[yaml.Node | None, Any]:
    """The nodes (with their lines) and the value of a YAML text, both None for an empty one.

    Raises `yaml.YAMLError`, and the other exceptions that PyYAML raises (`_UNFIT`, `RecursionError`).
    """
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return node, None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def read_yaml(path: Path, what: str, limit_bytes: int) -> tuple[yaml.Node | None, Any]:
    """Read and `parse_yaml` a file of at most `limit_bytes`; `what` names it in errors ("space", "device file").

    Raises `UserError`, one line, with the position of the problem.
    """
    try:
        return parse_yaml(read_text(path, what, limit_bytes))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(
            f"{what} {path}{where}: not valid YAML ({_one_line(error.problem)}): mend that place"
        ) from error
    except (yaml.YAMLError, RecursionError, *_UNFIT) as error:
        raise UserError(f"{what} {path}: not valid YAML ({_one_line(error)}): mend it or write it again") from error


def _one_line(problem: object) -> str:
    return " ".join(str(problem).split())[:200]


def _mistake(problem: str, mark: yaml.Mark) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
