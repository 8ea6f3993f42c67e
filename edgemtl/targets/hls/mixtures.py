"""The layers of experts of a transformer as projects of their own: what of such a net an FPGA computes.

hls4ml has no attention for streams, so that the rest of the net is left to the processor beside the FPGA. The
simulation is of both: the layers by their C++, everything else in float.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edgemtl.errors import FileError
from edgemtl.models import Experts, MultiTaskNet
from edgemtl.runtime import EngineSpec, Outputs
from edgemtl.targets.hls.csim import check_compiler
from edgemtl.targets.hls.experts import ExpertsLayer, fixed_experts
from edgemtl.targets.hls.experts_project import LANES, write_experts
from edgemtl.targets.hls.fixed import Format
from edgemtl.targets.hls.resources import Resources, memory_blocks
from edgemtl.tasks import map_outputs

__all__ = ["entries_of", "experts_resources", "left_out", "mixtures_of", "simulated_mixtures", "write_mixtures"]

FOLDER = "experts"
_BRIDGE = """#include "moe.hpp"
extern "C" void layer(const std::int32_t *tokens, const std::int16_t *router_weights, const std::int32_t *router_biases,
                      const std::int16_t *expert_weights, const std::int32_t *expert_biases, std::int32_t *outputs,
                      int count, int top_k, int capacity) {
    moe_layer(tokens, router_weights, router_biases, expert_weights, expert_biases, outputs, count, top_k, capacity);
}
"""
Images = NDArray[np.float32]


def mixtures_of(net: object) -> dict[str, Experts]:
    """The layers of experts of a net by the name of their module; none where it has none, or is a user's own."""
    if not isinstance(net, MultiTaskNet):
        return {}
    return {name: module for name, module in net.named_modules() if isinstance(module, Experts)}


def left_out(net: MultiTaskNet) -> str:
    """A line on what such a project leaves out, and how much of the net's work it has."""
    plans = [block.experts for block in net.plan.blocks if block.experts is not None]
    share = 2 * sum(plan.macs for plan in plans) / net.plan.cost().flops
    return (
        f"for the FPGA are the net's layers of experts, {share:.0%} of its products, each a project of its own; the "
        "rest (attention, convolutions, decoders) is left to the processor, since hls4ml has no attention"
    )


def write_mixtures(net: MultiTaskNet, folder: Path) -> tuple[list[Path], dict[str, ExpertsLayer]]:
    """Write the project of each layer into `folder/experts/NAME`; its files, relative to `folder`, and its layers.

    The test bench of each is of random tokens, as wide as what normalisation leaves.
    """
    files, layers = [], {}
    tokens = next(block.experts.tokens for block in net.plan.blocks if block.experts is not None)
    for name, module in mixtures_of(net).items():
        layer = fixed_experts(module, tokens)
        relative = Path(_folder_of(name))
        inputs = np.random.default_rng(0).standard_normal((tokens, layer.width))
        files += [
            relative / file for file in write_experts(layer, layer.activation.integers(inputs), folder / relative)
        ]
        layers[name] = layer
    return files, layers


def experts_resources(layer: ExpertsLayer) -> Resources:
    """Estimate of what a layer takes: its linear unit, two matrices, and the tokens that it reads, holds and gives.

    Cycles are those in which the linear unit is busy; loading weights goes on beside them. Of logic
    only what holds the matrices is estimated.
    """
    largest = -(-max(layer.width, layer.hidden, layer.experts) // LANES) * LANES
    bank = layer.expand_format.bits * -(-(largest**2) // (64 * LANES**2))  # of look-up tables, 64 places each
    held = 3 * memory_blocks(LANES * layer.activation.bits, layer.tokens * largest // LANES)
    routing = layer.tokens * -(-layer.experts // LANES) * -(-layer.width // LANES)
    work = 2 * layer.tokens * max(layer.top_k.values()) * -(-layer.hidden // LANES) * -(-layer.width // LANES)
    return Resources(2.0 * LANES**2 * bank, LANES**2, held, routing + work)


@contextmanager
def simulated_mixtures(net: MultiTaskNet, folder: Path) -> Iterator[Callable[[Images, Sequence[str]], Outputs]]:
    """The net with its layers of experts by the C++ of the projects that were just written into `folder`.

    Raises `UserError` without g++, `FileError` with the compiler's first complaint.
    """
    check_compiler()
    entries = EngineSpec.read(folder).options[FOLDER]
    simulated = net.copy().eval()
    with TemporaryDirectory(prefix="edgemtl-") as scratch:
        for name, module in mixtures_of(simulated).items():
            about = entries[name]
            library = Path(scratch) / f"{Path(about['folder']).name}.so"
            _compile(folder / about["folder"], library)
            run = _Layer(library, folder / about["folder"], about["routers"], Format(*about["activation"]))
            module.forward = run  # type: ignore[method-assign]

        def outputs(image: Images, tasks: Sequence[str]) -> Outputs:
            with torch.no_grad():
                every = map_outputs(Tensor.numpy, simulated(torch.from_numpy(image)))
            return {task: every[task] for task in tasks}

        yield outputs


class _Layer:
    """A compiled layer in the place of a module's `forward`."""

    def __init__(self, library: Path, folder: Path, routers: Mapping[str, Sequence[int]], activation: Format) -> None:
        self.function = ctypes.CDLL(str(library)).layer
        self.routers, self.activation = routers, activation
        self.arrays = {
            name: np.fromfile(folder / f"{name}.bin", dtype)
            for name, dtype in (
                ("router_weights", "<i2"), ("router_biases", "<i4"), ("expert_weights", "<i2"), ("expert_biases", "<i4")
            )
        }  # fmt: skip

    def __call__(self, x: Tensor, router: str) -> Tensor:
        tokens = np.ascontiguousarray(self.activation.integers(x[0].numpy()), np.int32)
        result, arrays = np.zeros_like(tokens), dict(self.arrays)
        for name in ("router_weights", "router_biases"):
            arrays[name] = np.ascontiguousarray(
                np.split(arrays[name], len(self.routers))[list(self.routers).index(router)]
            )
        every: list[NDArray[Any]] = [tokens, *arrays.values(), result]
        self.function(*(ctypes.c_void_p(array.ctypes.data) for array in every), len(tokens), *self.routers[router])
        return torch.from_numpy(self.activation.reals(result.astype(np.int64))).to(x.dtype)[None]


def _compile(folder: Path, library: Path) -> None:
    bridge = library.with_suffix(".cpp")
    bridge.write_text(_BRIDGE, encoding="utf-8")
    options = ["-std=c++17", "-O2", "-fPIC", "-shared", "-fno-gnu-unique", "-Wno-unknown-pragmas", f"-I{folder}"]
    command = ["g++", *options, str(folder / "moe.cpp"), str(bridge), "-o", str(library)]
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    if done.returncode:
        complaint = next((line for line in done.stderr.splitlines() if "error" in line), "it gave no reason")
        raise FileError(str(folder), f"C simulation does not compile: {complaint.strip()}")


def entries_of(layers: Mapping[str, ExpertsLayer]) -> dict[str, Any]:
    """Each layer's entry in `engine.json`: its folder, each router's top-k and capacity, its activations' format."""
    return {
        name: {
            "folder": _folder_of(name),
            "routers": {task: [layer.top_k[task], layer.capacity[task]] for task in layer.routers},
            "activation": [layer.activation.bits, layer.activation.fraction],
        }
        for name, layer in layers.items()
    }


def _folder_of(name: str) -> str:
    """The folder of a layer's project by the name of its module."""
    return f"{FOLDER}/{re.sub(r'[^0-9A-Za-z]+', '_', name)}"
