"""A whole net as a project for Vitis HLS, written by hls4ml."""

from __future__ import annotations

import copy
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import torch
from torch import fx

from edgemtl.devices import Fpga
from edgemtl.errors import MissingDependencyError, UnsupportedError, reason_of
from edgemtl.targets.hls.fifo import fifo_depths, padding_depth
from edgemtl.targets.hls.layers import HlsNet, Layer
from edgemtl.targets.hls.resources import CHAIN_DEPTH, INPUT

__all__ = ["FPGA_CLOCK_NS", "NAME", "write_project"]

NAME = "edgemtl_net"
"""The project's top function."""
FPGA_CLOCK_NS = 5.0
"""The period of the clock that projects are written for."""


def write_project(net: HlsNet, reuse: Mapping[str, int], fpga: Fpga, folder: Path) -> list[Path]:
    """Write the project of a net for a part into `folder`; returns its files, relative to it.

    Raises `MissingDependencyError` without hls4ml, `UnsupportedError` with its reason where it refuses the net.
    """
    with tempfile.TemporaryDirectory(prefix="edgemtl-") as scratch, _silence():
        written = Path(scratch) / NAME
        model = _convert(net, reuse, fpga, written)
        _set_depths(model, fifo_depths(net), {each.name: padding_depth(each) for each in net.products})
        model.write()
        _make_reproducible(written, model.config.config["Stamp"])
        shutil.copytree(written, folder, dirs_exist_ok=True)
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def _convert(net: HlsNet, reuse: Mapping[str, int], fpga: Fpga, folder: Path) -> Any:
    try:
        import hls4ml
    except ImportError as error:
        raise MissingDependencyError("hls4ml", "fpga", "building for the target hls") from error
    module = _in_types(net)
    try:
        config = hls4ml.utils.config_from_pytorch_model(
            module, (3, *net.input_size), granularity="name", backend="Vitis", channels_last_conversion="internal"
        )
        config["LayerName"] |= {layer.name: _layer_config(layer, reuse) for layer in net.layers}
        config["LayerName"][INPUT] = {"Precision": {"result": net.input.ap_fixed}}
        return hls4ml.converters.convert_from_pytorch_model(
            module,
            output_dir=str(folder),
            project_name=NAME,
            backend="Vitis",
            hls_config=config,
            io_type="io_stream",
            part=fpga.part,
            clock_period=FPGA_CLOCK_NS,
        )
    except Exception as error:  # hls4ml raises Exception itself for what it cannot convert
        raise UnsupportedError(
            f"target hls: hls4ml {hls4ml.__version__} refuses the net: {reason_of(error)}"
        ) from error


def _in_types(net: HlsNet) -> fx.GraphModule:
    """The module with weights and biases that are values of their types.

    hls4ml writes as many decimals as a type has binary places: what is halfway between two values would be cut, and
    rounded down. Weights that were stored in FP16 are often halfway.
    """
    module = copy.deepcopy(net.module)
    for layer in net.layers:
        for name, kind in (("weight", layer.weight), ("bias", layer.bias)):
            if kind is not None:
                parameter = module.get_parameter(f"{layer.name}.{name}")
                rounded = kind.reals(kind.integers(parameter.detach().numpy()))
                parameter.data.copy_(torch.from_numpy(rounded))
    return module


def _layer_config(layer: Layer, reuse: Mapping[str, int]) -> dict[str, Any]:
    types = {"result": layer.result, "weight": layer.weight, "bias": layer.bias, "accum": layer.accum}
    config: dict[str, Any] = {"Precision": {name: each.ap_fixed for name, each in types.items() if each is not None}}
    if layer.weight is not None:
        config |= {"Strategy": "Resource", "ReuseFactor": reuse[layer.name]}
    return config


def _set_depths(model: Any, depths: Mapping[str, int], padding: Mapping[str, int]) -> None:
    """Depths of all streams: a copy of a layer's output waits like it, the padding before a kernel does not."""
    for node in model.get_layers():
        if node.class_name == "ZeroPadding2D":
            depth = padding[node.name.removeprefix("zp2d_")]
        else:
            origin = node
            while origin.name not in depths and origin.get_input_node() is not None:
                origin = origin.get_input_node()
            depth = depths.get(origin.name, CHAIN_DEPTH)
        for variable in node.variables.values():
            if isinstance(variable.pragma, tuple):
                variable.pragma = ("stream", depth)


def _make_reproducible(folder: Path, stamp: str) -> None:
    """Give its library a name that is not random, and remove a description with paths of this machine."""
    script = folder / "build_lib.sh"
    script.write_text(script.read_text(encoding="utf-8").replace(stamp, NAME), encoding="utf-8")
    (folder / "hls4ml_config.yml").unlink()


@contextmanager
def _silence() -> Iterator[None]:
    """Discard what hls4ml prints and warns of on the way."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, redirect_stdout(nowhere), catch_warnings():
        simplefilter("ignore")
        yield
