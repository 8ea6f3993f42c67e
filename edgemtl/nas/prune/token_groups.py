"""The groups of a transformer that attention and layer norms tie: whole heads, and the width of tokens.

They are read off the plan. The dependency graph cannot know that a head's channels go together, and takes gates, which
multiply what experts give, for channels of tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from edgemtl.models import MultiTaskNet
from edgemtl.nas.prune.cut import Group, Member
from edgemtl.spaces import BlockPlan

__all__ = ["token_groups"]

_READ, _GIVE = ("queries", "keys", "values", "first"), ("proj", "second")


def token_groups(net: MultiTaskNet, reached: Mapping[str, set[str]]) -> list[Group]:
    """The heads of every block's attention, and the channels of all tokens.

    `reached` gives the tasks that depend on a module's parameters.
    """
    blocks = {block.parameters: block for block in net.plan.blocks}
    groups = [_heads(net, block, reached) for block in blocks.values() if block.kind == "tokens"]
    return [_width(net, blocks), *groups] if groups else []


def _tasks(net: MultiTaskNet, reached: set[str]) -> tuple[str, ...]:
    return tuple(task.name for task in net.tasks if task.name in reached)


def _heads(net: MultiTaskNet, block: BlockPlan, reached: Mapping[str, set[str]]) -> Group:
    path, size = f"blocks.{block.parameters}", block.convs[0].outputs
    given = (_member(f"{path}.{name}", True, size) for name in ("queries", "keys", "values"))
    members = (*given, _member(f"{path}.proj", False, size))
    name = f"{block.parameters}.attention"
    return Group(name, size, _tasks(net, reached[f"{path}.values"]), (members,), (name,), size // block.heads)


def _width(net: MultiTaskNet, blocks: Mapping[str, BlockPlan]) -> Group:
    """Producers and consumers of tokens, layer norms included."""
    size = blocks["patches"].convs[0].outputs
    members = tuple(_member(name, outputs, size) for name, outputs in _touching(net, blocks))
    tasks = tuple(task.name for task in net.tasks)
    return Group("patches.proj", size, tasks, (members,), ("patches.proj",))


def _touching(net: MultiTaskNet, blocks: Mapping[str, BlockPlan]) -> Iterator[tuple[str, bool]]:
    yield from (("blocks.patches.proj", True), ("blocks.patches.position", True))
    for name, block in blocks.items():
        path = f"blocks.{name}"
        if block.kind == "map":
            yield from ((f"{path}.norm", True), (f"{path}.conv", False))
        elif block.kind == "tokens":
            yield from ((f"{path}.norm1", True), (f"{path}.norm2", True))
            for layer in block.convs:
                if layer.name in (*_READ, *_GIVE):
                    yield f"{path}.{layer.name}", layer.name in _GIVE
            if block.experts is not None:
                yield from _touching_experts(net, f"{path}.mixture")


def _touching_experts(net: MultiTaskNet, path: str) -> Iterator[tuple[str, bool]]:
    gated = net.get_submodule(path).gate is not None
    if gated:
        yield f"{path}.gate.score", False
    for name, _ in net.get_submodule(f"{path}.routers").named_children():
        if not gated:
            yield f"{path}.routers.{name}", False
    for name, _ in net.get_submodule(f"{path}.experts").named_children():
        yield from ((f"{path}.experts.{name}.first", False), (f"{path}.experts.{name}.second", True))


def _member(module: str, outputs: bool, size: int) -> Member:
    return Member(module, outputs, tuple(range(size)), tuple(range(size)))
