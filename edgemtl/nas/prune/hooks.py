"""Hooks that see layers read and give as a net runs, and are gone afterwards, whatever ended the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

__all__ = ["watched"]

See = Callable[[str, tuple[Any, ...], Tensor], None]
"""Called with the name of a layer that has just run, what it read, and what it gave."""


@contextmanager
def watched(layers: Mapping[str, nn.Module], see: See) -> Iterator[None]:
    """Have `see` called each time that one of the layers runs, while the block lasts."""

    def hook(name: str, layer: nn.Module, read: tuple[Any, ...], given: Tensor) -> None:
        see(name, read, given)

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.callback(layer.register_forward_hook(partial(hook, name)).remove)
        yield
