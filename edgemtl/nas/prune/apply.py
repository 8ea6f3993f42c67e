"""A pruned module's folder: what a user needs to cut her own module the same way, as data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from edgemtl.errors import UserError, naming, unknown_name
from edgemtl.files.disk import read_json
from edgemtl.files.paths import inside
from edgemtl.files.seals import check_seal, sha256
from edgemtl.models import check_state, plain_module, read_state
from edgemtl.nas.prune.cut import Side, keep_positions, whole_size

__all__ = [
    "PRUNING_FILE",
    "PRUNING_SCHEMA",
    "WEIGHTS_FILE",
    "apply_pruning",
    "kept_json",
    "kept_sides",
    "weights_bytes",
]

PRUNING_FILE = "pruning.json"
PRUNING_SCHEMA = "edgemtl.pruning/1"
WEIGHTS_FILE = "weights.safetensors"


def apply_pruning(module: nn.Module, folder: Path | str) -> nn.Module:
    """A copy of a module, cut as `edgemtl prune` wrote it into `folder` and with the weights from there.

    It is made of plain layers (see `plain_module`): in FP32, not compiled or data parallel, norms of weights folded.
    `module` is what the function that was pruned returns, whatever its weights are. The copy is in evaluation mode and
    can be trained like any other. Raises `UserError` for a folder that is none or damaged, and for another module.
    """
    folder = Path(folder)
    content = read_json(inside(folder, PRUNING_FILE, "pruned module"), "pruning")
    if not isinstance(content, dict) or content.get("schema") != PRUNING_SCHEMA or "kept" not in content:
        raise UserError(f"{folder} holds no pruned module: give the folder that `edgemtl prune package.module:f` wrote")
    with naming("the module"):
        made = plain_module(module)
    keep_positions(made, _kept(folder / PRUNING_FILE, content["kept"], made))
    path = inside(folder, WEIGHTS_FILE, "pruned module")
    state, _ = read_state(path, "weights")
    try:
        check_state(state, made.state_dict(), path, "weights")
    except UserError as error:
        raise UserError(f"{path} are not the weights of this module: {error}") from error
    check_seal(content, folder / PRUNING_FILE, "pruning")
    if sha256(path) != content.get("weights_sha256"):
        raise UserError(f"weights {path} were changed: their SHA-256 is another than {PRUNING_FILE} says; prune again")
    made.load_state_dict(state)
    made.eval()
    return made


def kept_sides(folder: Path, module: nn.Module) -> dict[Side, list[int]]:
    """The positions that a pruning in `folder` keeps of each side of a layer of `module`; raises as `apply_pruning`."""
    content = read_json(inside(folder, PRUNING_FILE, "pruned module"), "pruning")
    return _kept(folder / PRUNING_FILE, content["kept"], plain_module(module))


def kept_json(kept_positions: Mapping[Side, Sequence[int]]) -> list[dict[str, Any]]:
    """The positions that each side of a layer keeps, as JSON, by the layer's path in the user's module."""
    return [
        {"layer": name.removeprefix("module."), "side": side, "positions": list(positions)}
        for (name, side), positions in kept_positions.items()
    ]


def weights_bytes(module: nn.Module) -> bytes:
    """Parameters and buffers as a safetensors file."""
    return save({name: tensor.detach().clone().contiguous() for name, tensor in module.state_dict().items()})


def _kept(file: Path, rows: Any, module: nn.Module) -> dict[Side, list[int]]:
    layers, parameters = dict(module.named_modules()), dict(module.named_parameters(remove_duplicate=False))
    kept_positions: dict[Side, list[int]] = {}
    try:
        for row in rows:
            name, side, positions = (
                str(row["layer"]),
                str(row["side"]),
                [int(position) for position in row["positions"]],
            )
            named: Mapping[str, object] = layers if side in ("inputs", "outputs") else parameters
            if name not in named:
                raise unknown_name("layer of the module", name, named)
            if (
                not positions
                or positions != sorted({*positions})
                or not 0 <= positions[0] <= positions[-1] < whole_size(module, (name, side))
            ):
                raise ValueError(f"positions of {name}")
            kept_positions[name, side] = positions
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise UserError(f"pruning {file} is damaged, or of another module ({error}): prune again") from error
    return kept_positions
