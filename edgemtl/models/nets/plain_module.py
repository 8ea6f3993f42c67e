"""A user's module as plain layers: without the wrappers, hooks and parametrizations that would hide its weights.

Pruning cuts weights of layers. A compiled or data-parallel module holds its layers one level deeper; weight norm,
spectral norm and masks compute a layer's weight from other parameters. Each is undone on a copy, which gives the same
outputs; whoever prunes a module and whoever applies that pruning to it later see the same names.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm, SpectralNormLoadStateDictPreHook
from torch.nn.utils.weight_norm import WeightNorm

from edgemtl.errors import UserError

__all__ = ["copied", "eagerly", "plain_module"]


def plain_module(module: nn.Module) -> nn.Module:
    """A copy of a module with the same outputs, in FP32, made of layers that hold their own weights.

    Raises `UserError` for a module that is no Python code any more, and for weights that hold no values.
    """
    _check_state(module)
    made = _unwrapped(copied(module))
    for part in [*made.modules()]:
        for child, inner in [*part._modules.items()]:
            if inner is not None:
                part._modules[child] = _unwrapped(inner)
    for part in made.modules():
        part._compiled_call_impl = None
        _fold(part)
    return made.float()


def _check_state(module: nn.Module) -> None:
    for name, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise UserError(f"{_called(name)} is compiled by torch.jit and cannot be cut: give it as it was before")
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if is_lazy(tensor):
            raise UserError(f"{name} of a lazy layer has no shape yet: run the module on an image once")
        if tensor.is_meta:
            raise UserError(f"{name} is on the meta device and holds no values: load the module's weights first")
    packed = [name for name, value in module.state_dict().items() if not isinstance(value, Tensor)]
    if packed:
        raise UserError(f"{packed[0]} is no tensor, as in a quantized module: give it as it was before")


def copied(module: nn.Module) -> nn.Module:
    """A deep copy, also of a module that keeps tensors of an earlier call, which torch would refuse to copy.

    Raises whatever the module's own code raises, and `UserError` where that returns no copy.
    """
    memo = {id(tensor): tensor.detach().clone() for tensor in _results(module)}
    made = copy.deepcopy(module, memo)
    if made is module:
        raise UserError("cannot be copied: its __deepcopy__ returns the module itself")
    return made


def _called(name: str) -> str:
    return f"its part {name}" if name else "it"


def _unwrapped(module: nn.Module) -> nn.Module:
    """The module inside a compiled or data-parallel wrapper."""
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif "torch._dynamo" in sys.modules and isinstance(module, torch._dynamo.OptimizedModule):
            module = module._orig_mod
        else:
            return module


def eagerly() -> AbstractContextManager[object]:
    """A context in which functions decorated with `torch.compile` run as they are written."""
    if "torch._dynamo" not in sys.modules:  # it takes seconds to import, and then nothing is compiled
        return nullcontext()
    stance: AbstractContextManager[object] = torch.compiler.set_stance("force_eager")
    return stance


def _fold(layer: nn.Module) -> None:
    """Make what computes a layer's weights part of them: parametrizations, and the hooks that came before these."""
    if parametrize.is_parametrized(layer):
        for name in [*layer.parametrizations]:  # type: ignore[misc]
            parametrize.remove_parametrizations(layer, name, leave_parametrized=True)
    for hook in [*layer._forward_pre_hooks.values()]:
        if isinstance(hook, WeightNorm):
            nn.utils.remove_weight_norm(layer, hook.name)
        elif isinstance(hook, SpectralNorm):
            nn.utils.remove_spectral_norm(layer, hook.name)
            _forget_loading(layer)
        elif isinstance(hook, prune.BasePruningMethod):
            prune.remove(layer, hook._tensor_name)  # type: ignore[no-untyped-call]


def _forget_loading(layer: nn.Module) -> None:
    """Remove spectral norm's hook on loading a state, which torch leaves behind."""
    for key, hook in [*layer._load_state_dict_pre_hooks.items()]:
        if isinstance(getattr(hook, "hook", hook), SpectralNormLoadStateDictPreHook):
            del layer._load_state_dict_pre_hooks[key]


def _results(module: nn.Module) -> Iterator[Tensor]:
    """Tensors that some part holds and that autograd made, such as features kept from the last call."""
    seen = set[int]()

    def inside(value: Any) -> Iterator[Tensor]:
        if isinstance(value, Tensor):
            if value.grad_fn is not None:
                yield value
        elif isinstance(value, dict | list | tuple | set) and id(value) not in seen:
            seen.add(id(value))
            for each in value.values() if isinstance(value, dict) else value:
                yield from inside(each)

    for part in module.modules():
        yield from inside(vars(part))
