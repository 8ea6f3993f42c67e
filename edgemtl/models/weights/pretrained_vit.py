"""The dense part of a public ViT checkpoint, for the trunk of a supernet with experts.

The file has the key names of DeiT and timm: `blocks.N.attn.qkv`, `blocks.N.mlp.fc1`, `norm`. Class token and learned
positions have no counterpart here: tokens know their places from their neighbours. Experts begin as parts of the MLP
that stood in their block (sparse upcycling, Komatsuzaki et al. 2023, there whole copies; the parts are ours): expert
number e gets part e modulo the number of parts, in turns, scaled by what a gate lets through at the start, so that the
experts of a token sum to about what the MLP gave.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from edgemtl.spaces import BlockPlan, ConvPlan, ExpertsPlan, Plan

__all__ = ["ViTMismatch", "vit_state"]


class ViTMismatch(Exception):
    """The mismatches between the file and the space's largest design, in a few words."""


def vit_state(plan: Plan, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The file's tensors by the names that the nets of `plan` give them: patches, attention, norms, MLPs and experts.

    A stem of convolutions keeps its own weights, and so do the patches after it, decoders and routers. Raises
    `ViTMismatch`.
    """
    state: dict[str, Tensor] = {}
    copies = {block.parameters: block for block in plan.blocks}
    layers = [name for name, block in copies.items() if block.kind == "tokens"]
    parts = {name: _Part(given, f"blocks.{number}") for number, name in enumerate(layers)}
    for block in copies.values():
        if block.kind == "patches" and block.inputs == ("image",):
            state |= _renamed(given, {"patch_embed.proj": f"blocks.{block.name}.proj"})
        elif block.kind == "tokens":
            state |= dict(_token_block(block, parts[block.parameters]))
        elif block.kind == "map":
            state |= _renamed(given, {"norm": f"blocks.{block.parameters}.norm"})
    for block in plan.blocks:
        if block.experts is not None:
            state |= dict(_experts(block, block.experts, parts[block.parameters]))
    return state


class _Part:
    """The tensors of one block of the file, by the rest of their names."""

    def __init__(self, given: Mapping[str, Tensor], prefix: str) -> None:
        self.given, self.prefix = given, prefix

    def __getitem__(self, name: str) -> Tensor:
        return _tensor(self.given, f"{self.prefix}.{name}")


def _tensor(given: Mapping[str, Tensor], name: str) -> Tensor:
    if name not in given:
        raise ViTMismatch(f"it lacks {name}")
    return given[name]


def _renamed(given: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    return {
        f"{ours}.{kind}": _tensor(given, f"{theirs}.{kind}")
        for theirs, ours in names.items()
        for kind in ("weight", "bias")
    }


def _token_block(block: BlockPlan, part: _Part) -> Iterator[tuple[str, Tensor]]:
    ours, convs = f"blocks.{block.parameters}", {conv.name: conv for conv in block.convs}
    for kind in ("weight", "bias"):
        joint, width = part[f"attn.qkv.{kind}"], convs["queries"].outputs
        if len(joint) != 3 * width:
            raise ViTMismatch(f"{part.prefix}.attn has width {len(joint) // 3} there, {width} here")
        for name, piece in zip(("queries", "keys", "values"), torch.split(joint, width), strict=True):
            yield f"{ours}.{name}.{kind}", piece
        yield f"{ours}.proj.{kind}", part[f"attn.proj.{kind}"]
        for norm in ("norm1", "norm2"):
            yield f"{ours}.{norm}.{kind}", part[f"{norm}.{kind}"]
        if "first" in convs:
            yield f"{ours}.first.{kind}", part[f"mlp.fc1.{kind}"]
            yield f"{ours}.second.{kind}", part[f"mlp.fc2.{kind}"]


def _experts(block: BlockPlan, experts: ExpertsPlan, part: _Part) -> Iterator[tuple[str, Tensor]]:
    expand, bias, project = part["mlp.fc1.weight"], part["mlp.fc1.bias"], part["mlp.fc2.weight"]
    parts = _parts(len(expand), experts.first, part)
    # Times its top-k gates a token gets so much: gates sum to 1, or are 1 / experts each while a router is new.
    passed = 1.0 if experts.renormalise else experts.top_k / len(experts.numbers)
    for number in experts.numbers:
        ours, position = f"blocks.{block.parameters}.mixture.experts.{number}", number % parts
        rows = slice(position * experts.first.outputs, (position + 1) * experts.first.outputs)
        yield f"{ours}.{experts.first.name}.weight", expand[rows]
        yield f"{ours}.{experts.first.name}.bias", bias[rows]
        yield f"{ours}.{experts.second.name}.weight", project[:, rows] * (parts / passed)
        yield f"{ours}.{experts.second.name}.bias", part["mlp.fc2.bias"] / passed


def _parts(hidden: int, first: ConvPlan, part: _Part) -> int:
    if hidden % first.outputs:
        raise ViTMismatch(f"{part.prefix}.mlp has {hidden} units, which experts of {first.outputs} do not divide")
    return hidden // first.outputs
