"""FPGAs: a project for the vendor's tools, with types of each layer's own range and reuse that fits the part.

What is written runs on no processor: it is simulated here, to the bit, and synthesized elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from edgemtl.devices import Device, Fpga
from edgemtl.errors import UserError
from edgemtl.files.disk import write_json
from edgemtl.models.graph import trace
from edgemtl.models.quantization import QuantScheme, Ranges, simulate
from edgemtl.runtime import EngineSpec, Outputs
from edgemtl.spaces import BlockPlan
from edgemtl.targets.common import check_build, write_spec
from edgemtl.targets.hls.csim import compiled
from edgemtl.targets.hls.fifo import fifo_depths, with_fifos
from edgemtl.targets.hls.fixed_net import FixedNet
from edgemtl.targets.hls.layers import STORAGE, HlsNet, flat_net
from edgemtl.targets.hls.mixtures import (
    entries_of,
    experts_resources,
    left_out,
    mixtures_of,
    simulated_mixtures,
    write_mixtures,
)
from edgemtl.targets.hls.project import FPGA_CLOCK_NS, write_project
from edgemtl.targets.hls.resources import (
    FIXED_BITS,
    Product,
    Resources,
    check_fits,
    choose_reuse,
    part_limits,
    products_of,
    room_for,
    smallest,
)
from edgemtl.targets.onnx.dispatch import DispatchPolicy
from edgemtl.targets.target import ExportTarget
from edgemtl.traits import TargetTraits
from edgemtl.units import Budget, find_quantity, parse_budget

if TYPE_CHECKING:
    from torch import nn

    from edgemtl.models import MultiTaskNet, TaskNet
    from edgemtl.models.graph import Graph

__all__ = ["HlsTarget", "within_budgets"]

_Take = Callable[[Sequence[BlockPlan], Mapping[str, str]], Resources]
USUAL_DEVICE = "zcu104"
REPORT = "estimate.json"
_TRAITS = TargetTraits(
    name="hls",
    title="FPGA project (hls4ml, Vitis HLS)",
    block_precisions=tuple(FIXED_BITS),
    engine_precisions=("fixed",),
    channel_multiple=1,
    runtime="hls4ml",
    extra="fpga",
    measurer="none",
    arithmetic="fpga",
    needs_ranges=True,
    storage=STORAGE,
    lacking=("depthwise", "relu6", "tokens"),
)


@dataclass(frozen=True)
class HlsTarget:
    """Writes a project for the FPGA of `device`: 16 bits where a block is "float", 12, 10 or 8 where "int12" to "int8".

    Scales are powers of two, each layer's from its own range. All tasks are computed for every image, as fast as the
    part and `budgets` in its resources have room for. Of a net with experts it writes the layers of experts, each a
    project of its own.
    """

    device: Device
    dispatch: DispatchPolicy = DispatchPolicy()  # noqa: RUF009 (frozen)
    budgets: tuple[Budget, ...] = ()

    @property
    def traits(self) -> TargetTraits:
        """Those of every FPGA, and what a net takes of this one."""
        traits = _TRAITS.on(self.device)
        if self.device.fpga is None:
            return traits
        counts: dict[str, _Take] = {
            "luts": _least,
            "dsps": _least,
            "brams": _least,
            "cycles": partial(_fastest, self.device.fpga, self.budgets),
        }
        quantities = tuple(
            replace(find_quantity(name), count=partial(_count, name, take)) for name, take in counts.items()
        )
        hardware = f"FPGA {self.device.fpga.part}"
        return replace(traits, hardware=hardware, quantities=quantities, limits=part_limits(self.device))

    @property
    def scheme(self) -> QuantScheme:
        """Nearest to its eight bits, for training through rounding: symmetric, and scales are not powers of two."""
        return QuantScheme("int8", symmetric=True)

    def build(self, net: TaskNet, precision: Mapping[str, str], ranges: Ranges | None, folder: Path) -> list[Path]:
        """Write the project; see `edgemtl.targets.ExportTarget`.

        Raises `UserError` too where the device has no FPGA, or one that is too small, and where there are no ranges.
        """
        fpga = _fpga_of(self.device)
        graph, ranges = check_build(net, precision, ranges, self.traits)
        if mixtures_of(net):
            return self._build_mixtures(cast("MultiTaskNet", net), graph, precision, folder)
        flat = flat_net(graph, precision, ranges)
        products = with_fifos(flat)
        check_fits(smallest(products), self.device)
        reuse, resources = _chosen(products, fpga, self.budgets)
        files = write_project(flat, reuse, fpga, folder)
        write_json(folder / REPORT, _report(flat, reuse, resources))
        layers = {
            tensor: {"layer": name, "shuffle": factor, "flat": tensor in flat.flattened}
            for tensor, (name, factor) in flat.outputs.items()
        }
        names = {"report": REPORT, **{f"file{index}": path.as_posix() for index, path in enumerate(files)}}
        return write_spec(folder, self, graph, names, precision, layers=layers, engine="fixed", part=fpga.part,
                          shapes=_shapes(flat))  # fmt: skip

    def _build_mixtures(
        self, net: MultiTaskNet, graph: Graph, precision: Mapping[str, str], folder: Path
    ) -> list[Path]:
        """Write the projects of a net's layers of experts, and what is left out."""
        fpga = _fpga_of(self.device)
        files, layers = write_mixtures(net, folder)
        taken = {name: experts_resources(layer) for name, layer in layers.items()}
        for resources in taken.values():
            check_fits(resources, self.device)
        write_json(folder / REPORT, {name: _amounts(resources) for name, resources in taken.items()})
        names = {"report": REPORT, **{f"file{index}": path.as_posix() for index, path in enumerate(files)}}
        return write_spec(folder, self, graph, names, precision, engine="fixed", part=fpga.part,
                          experts=entries_of(layers), left_out=left_out(net))  # fmt: skip

    def emulation(self, net: nn.Module, precision: Mapping[str, str], ranges: Ranges | None) -> nn.Module:
        """The arithmetic of the project, to the bit; see `edgemtl.targets.EmulatingTarget`.

        Of a net with experts, most of which a processor computes, it is what the scheme says.
        """
        if mixtures_of(net):
            return simulate(net, precision, ranges, self.scheme)
        return FixedNet(trace(net), precision, ranges or Ranges({}))

    @contextmanager
    def simulation(
        self, net: TaskNet, folder: Path
    ) -> Iterator[Callable[[NDArray[np.float32], Sequence[str]], Outputs]]:
        """C simulation of the project that `build` has just written; see `edgemtl.targets.SimulatingTarget`."""
        spec = EngineSpec.read(folder)
        if mixtures_of(net):
            with simulated_mixtures(cast("MultiTaskNet", net), folder) as run:
                yield run
            return
        shapes = {name: (int(c), int(h), int(w)) for name, (c, h, w) in spec.options["shapes"].items()}
        with compiled(folder, shapes) as run:
            yield run


def within_budgets(target: ExportTarget, budgets: Iterable[str]) -> ExportTarget:
    """The target; one for FPGAs with `budgets`, within which its projects are as fast as they can be."""
    return replace(target, budgets=tuple(map(parse_budget, budgets))) if isinstance(target, HlsTarget) else target


def _shapes(net: HlsNet) -> dict[str, tuple[int, int, int]]:
    """Shapes of the project's outputs in the order in which it has them: that of its layers."""
    names = {name for name, _ in net.outputs.values()}
    return {layer.name: layer.shape for layer in net.layers if layer.name in names}


def _fpga_of(device: Device) -> Fpga:
    if device.fpga is None:
        raise UserError(
            f"target hls needs a device with an FPGA, {device.name} has none: add --device {USUAL_DEVICE}, or another "
            "that `edgemtl devices` lists with one"
        )
    return device.fpga


def _report(net: HlsNet, reuse: Mapping[str, int], resources: Resources) -> dict[str, Any]:
    """The estimate that stands beside the project."""
    types = {layer.name: layer.result.ap_fixed for layer in net.layers}
    return {**_amounts(resources), "reuse": dict(reuse), "types": types, "fifos": fifo_depths(net)}


def _amounts(resources: Resources) -> dict[str, Any]:
    amounts = {"luts": resources.luts, "dsps": resources.dsps, "brams_36k": resources.brams, "cycles": resources.cycles}
    return {
        "kind": "estimated",
        **{name: round(amount) for name, amount in amounts.items() if amount},
        "interval_ms": resources.cycles * FPGA_CLOCK_NS * 1e-6,
        "clock_ns": FPGA_CLOCK_NS,
    }


def _least(blocks: Sequence[BlockPlan], precision: Mapping[str, str]) -> Resources:
    return smallest(products_of(blocks, precision))


def _fastest(
    fpga: Fpga, budgets: Sequence[Budget], blocks: Sequence[BlockPlan], precision: Mapping[str, str]
) -> Resources:
    return _chosen(products_of(blocks, precision), fpga, budgets)[1]


def _chosen(products: Sequence[Product], fpga: Fpga, budgets: Sequence[Budget]) -> tuple[dict[str, int], Resources]:
    return choose_reuse(products, room_for(smallest(products), fpga, budgets))


def _count(
    name: str,
    take: _Take,
    blocks: Sequence[BlockPlan],
    precision: Mapping[str, str],
) -> float:
    return float(getattr(take(blocks, precision), name))
