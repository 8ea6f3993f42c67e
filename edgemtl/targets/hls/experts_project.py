"""The HLS project of a layer of experts: its sources, its sizes and tables, its parameters, and its C simulation."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgemtl.errors import FileError
from edgemtl.files.disk import write_atomic
from edgemtl.targets.hls.csim import check_compiler, shared_source
from edgemtl.targets.hls.emulator import EXP_STEPS_LOG2, GELU_STEPS_LOG2, LOG2_E, emulate, exp_table, gelu_table
from edgemtl.targets.hls.experts import BIAS, EXP, GATE, LOGIT, ExpertsLayer
from edgemtl.targets.hls.fixed import Integers

__all__ = ["LANES", "SOURCES", "simulate_experts", "write_experts"]

SOURCES = ("fixed.hpp", "functions.hpp", "moe.hpp", "moe.cpp", "moe_test.cpp")
"""Files of `export/hls` that a project is made of; `moe_config.hpp` is written for the layer."""
_CONFIG = "moe_config.hpp"
LANES = 16
"""Rows and columns of the linear unit: 256 products, one DSP slice each, in every cycle."""


def write_experts(layer: ExpertsLayer, tokens: Integers, folder: Path) -> list[Path]:
    """Write sources, parameters and a test on `tokens` (count, width), integers; returns files relative to `folder`.

    The test bench compares every task's outputs with the emulator's, here and under the vendor's tools.
    """
    routers = list(layer.routers.values())
    arrays: dict[str, NDArray[Any]] = {
        "tokens": tokens.astype(np.int32),
        "router_weights": np.stack([router.weights for router in routers]).astype(np.int16),
        "router_biases": np.stack([router.biases for router in routers]).astype(np.int32),
        "expert_weights": _by_expert(layer, "weights").astype(np.int16),
        "expert_biases": _by_expert(layer, "biases").astype(np.int32),
        "expected": np.stack([emulate(layer, tokens, task) for task in layer.routers]).astype(np.int32),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name in SOURCES:
        write_atomic(folder / name, shared_source(name).read_bytes())
    write_atomic(folder / _CONFIG, config_header(layer))
    for name, array in arrays.items():
        write_atomic(folder / f"{name}.bin", array.astype(array.dtype.newbyteorder("<")).tobytes())
    return [Path(name) for name in (*SOURCES, _CONFIG, *(f"{name}.bin" for name in arrays))]


def simulate_experts(folder: Path, layer: ExpertsLayer, flags: tuple[str, ...] = ()) -> Mapping[str, Integers]:
    """Compile a written project with g++, run its test bench, and give each task's outputs (count, width).

    `flags` are further ones of the compiler. Raises `UserError` where there is no g++, `FileError` with the compiler's
    or the test bench's first complaint where the project fails: a bit that differs from the emulator's is one.
    """
    check_compiler()
    program = folder / "moe_test"
    units = [str(folder / name) for name in SOURCES if name.endswith(".cpp")]
    options = ["-std=c++17", "-O2", "-Wno-unknown-pragmas", *flags]
    _run(["g++", *options, *units, "-o", str(program)], folder)
    try:
        _run([str(program), str(folder)], folder)
    finally:
        program.unlink(missing_ok=True)
    outputs = np.fromfile(folder / "outputs.bin", "<i4").astype(np.int64)
    return dict(zip(layer.routers, outputs.reshape(len(layer.routers), -1, layer.width), strict=True))


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, text=True, capture_output=True, check=False)
    if done.returncode:
        lines = (done.stderr + done.stdout).splitlines()
        complaint = next((line for line in lines if "error" in line), lines[0] if lines else "it gave no reason")
        raise FileError(str(folder), f"C simulation failed: {complaint.strip()}")


def _by_expert(layer: ExpertsLayer, field: str) -> Integers:
    """Each expert's first and then its second layer, one row an expert."""
    both = (layer.expand, layer.project)
    parts: list[Integers] = [getattr(linear, field).reshape(layer.experts, -1) for linear in both]
    return np.concatenate(parts, 1)


def config_header(layer: ExpertsLayer) -> str:
    """`moe_config.hpp`: sizes, widths, binary places and tables of a layer."""
    activation = layer.activation
    sums = {
        name: activation.fraction + each.fraction
        for name, each in (
            ("ROUTER", layer.router_format), ("EXPAND", layer.expand_format), ("PROJECT", layer.project_format)
        )
    }  # fmt: skip
    constants = {
        "TOKENS": layer.tokens, "WIDTH": layer.width, "HIDDEN": layer.hidden, "EXPERTS": layer.experts,
        "TOP_K": max(layer.top_k.values()), "ROW_LANES": LANES, "COLUMN_LANES": LANES,
        "LARGEST": -(-max(layer.width, layer.hidden, layer.experts) // LANES) * LANES,
        "ACTIVATION_BITS": activation.bits, "ACTIVATION_FRACTION": activation.fraction,
        "WEIGHT_BITS": layer.expand_format.bits, "EXPAND_FRACTION": layer.expand_format.fraction,
        "PROJECT_FRACTION": layer.project_format.fraction,
        **{f"{name}_SUM_FRACTION": fraction for name, fraction in sums.items()},
        "BIAS_BITS": BIAS.bits, "BIAS_FRACTION": BIAS.fraction, "SUM_BITS": layer.sum_bits,
        "LOGIT_BITS": LOGIT.bits, "LOGIT_FRACTION": LOGIT.fraction, "GATE_BITS": GATE.bits,
        "GATE_FRACTION": GATE.fraction, "EXP_BITS": EXP.bits, "EXP_FRACTION": EXP.fraction,
        "TOTAL_BITS": layer.total_bits, "LOG2_E": LOG2_E, "GELU_STEPS_LOG2": GELU_STEPS_LOG2,
        "EXP_STEPS_LOG2": EXP_STEPS_LOG2, "GELU_ENTRIES": len(gelu_table(activation)),
    }  # fmt: skip
    types = {name.capitalize(): f"{name}_BITS" for name in
             ("ACTIVATION", "WEIGHT", "BIAS", "SUM", "LOGIT", "GATE", "TOTAL")}  # fmt: skip
    types |= {"Exponential": "EXP_BITS", "Distance": "LOGIT_BITS + 1"}
    tables = {"GELU_TABLE": gelu_table(activation), "EXP_TABLE": exp_table()}
    routing = {"ROUTER_TOP_K": layer.top_k.values(), "ROUTER_CAPACITY": layer.capacity.values()}
    lines = [
        "// Sizes, widths, binary places and tables of one layer: written by edgemtl, do not edit.",
        "#pragma once",
        '#include "fixed.hpp"',
        *(f"constexpr int {name} = {value};" for name, value in constants.items()),
        f"constexpr bool RENORMALISE = {str(layer.renormalise).lower()};",
        *(f"using {name} = Integer<{bits}>;" for name, bits in types.items()),
        *(f"constexpr std::int32_t {name}[] = {{{', '.join(map(str, table))}}};" for name, table in tables.items()),
        *(f"constexpr int {name}[] = {{{', '.join(map(str, each))}}};" for name, each in routing.items()),
    ]
    return "\n".join(lines) + "\n"
