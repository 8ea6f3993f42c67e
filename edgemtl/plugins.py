"""Registries of things found by name, built in or plugged in: the one place where a string becomes code.

A package plugs in through entry points: `[project.entry-points."edgemtl.targets"]` with `mine = "package.module:Mine"`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from inspect import get_annotations
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar, cast

from edgemtl.errors import EdgeMTLError, UserError, one_line, unknown_name

__all__ = ["Registry", "load_user_function"]

T = TypeVar("T")
P = ParamSpec("P")
R = TypeVar("R")


class Registry(Generic[T]):
    """Entries of one kind, found by name: edgemtl's own, and those that installed packages bring.

    `what` is what messages call the kind, `group` the entry-point group of its plug-ins. Of a plugged-in entry,
    `instance_of` is the class that it must be an instance of, and by its own name of; `returns` is the class, or the
    protocol, of what a call of it must give. A built-in entry is a function that imports and returns it, so that
    listing names imports nothing; a plug-in cannot replace it.
    """

    def __init__(
        self,
        what: str,
        group: str,
        built_in: Mapping[str, Callable[[], T]],
        *,
        instance_of: type[T] | None = None,
        returns: type[Any] | None = None,
    ) -> None:
        self.what, self.group = what, group
        self._built_in, self._instance_of, self._returns = built_in, instance_of, returns

    def names(self) -> list[str]:
        """Every name, built in and plugged in, sorted."""
        return sorted({*self._built_in, *entry_points(group=self.group).names})

    def find(self, name: str) -> T:
        """The entry called `name`.

        Raises `UserError` with the nearest names where there is none, and naming the plug-in that cannot be loaded.
        """
        if name in self._built_in:
            return self._built_in[name]()
        point = self._plugged(name)
        with self._blaming(point, "cannot be loaded"):
            entry = point.load()
            if self._instance_of is None:
                if not callable(entry):
                    raise TypeError(f"it is a {type(entry).__name__}, not a function")
            else:
                _check_contract("it is", entry, self._instance_of)
                if (own_name := getattr(entry, "name", name)) != name:
                    raise TypeError(f"it calls itself {own_name!r}, not {name!r}")
        return cast("T", entry)

    def call(self: Registry[Callable[P, R]], name: str, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call the entry named `name`; raises `UserError` as `find` does, and where a plug-in fails."""
        entry = self.find(name)
        if name in self._built_in:
            return entry(*args, **kwargs)
        with self._blaming(self._plugged(name), "fails"):
            result = entry(*args, **kwargs)
            if self._returns is not None:
                _check_contract("it gives", result, self._returns)
        return result

    def _plugged(self, name: str) -> EntryPoint:
        points = list(entry_points(group=self.group, name=name))
        if not points:
            raise unknown_name(self.what, name, self.names())
        if len(points) > 1:
            brought = " and ".join(sorted(point.value for point in points))
            raise UserError(f"{self.what} {name!r} is brought by {brought}: uninstall all but one of their packages")
        return points[0]

    @contextmanager
    def _blaming(self, point: EntryPoint, failure: str) -> Iterator[None]:
        prefix = f"{self.what} {point.name!r}, which {point.value} brings, {failure}"
        with _foreign_code(prefix, "mend or uninstall that package"):
            yield


def _check_contract(is_or_gives: str, value: object, contract: type[Any]) -> None:
    """Raise `TypeError` for what is no instance of a class, or lacks public names of a class or a protocol."""
    if not getattr(contract, "_is_protocol", False) and not isinstance(value, contract):
        raise TypeError(f"{is_or_gives} a {type(value).__name__}, not a {contract.__name__}")
    bases = [base for base in contract.__mro__ if base.__module__ not in ("abc", "builtins", "typing")]
    names = {name for base in bases for name in (*vars(base), *get_annotations(base)) if not name.startswith("_")}
    # A property counts by its class: to ask for its value may take long.
    lacking = sorted(name for name in names if not hasattr(type(value), name) and not hasattr(value, name))
    if lacking:
        raise TypeError(f"{is_or_gives} a {type(value).__name__} without {', '.join(lacking)}")


@contextmanager
def _foreign_code(failure: str, remedy: str) -> Iterator[None]:
    """Whatever another's code raises inside becomes one `UserError`; what edgemtl raises on purpose stays."""
    try:
        yield
    except (EdgeMTLError, MemoryError):
        raise
    except (Exception, SystemExit) as error:  # another's code may raise anything
        raise UserError(f"{failure} ({one_line(error)}): {remedy}") from error


def load_user_function(spec: str) -> Callable[[], Any]:
    """The function that `package.module:function` names in the user's own code, found in the working directory too.

    Its module is imported. Raises `UserError` where the text names no function, and where importing fails.
    """
    package, _, name = spec.partition(":")
    if not name.isidentifier() or not all(part.isidentifier() for part in package.split(".")):
        raise UserError(f"{spec!r} names no function: write package.module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = import_module(package)
    except ModuleNotFoundError as error:
        if error.name and f"{package}.".startswith(f"{error.name}."):
            raise UserError(
                f"{spec}: there is no Python module {error.name!r} in the working directory or installed"
            ) from error
        raise UserError(f"{spec}: importing {package} failed: {one_line(error)}") from error
    except (Exception, SystemExit) as error:  # the user's code may raise anything
        raise UserError(f"{spec}: importing {package} failed: {one_line(error)}") from error
    functions = {
        key: value
        for key, value in vars(module).items()
        if callable(value) and (key == name or getattr(value, "__module__", "") == package)
    }
    if name not in functions:
        raise unknown_name(f"function in module {package}:", name, functions)
    return cast("Callable[[], Any]", functions[name])
