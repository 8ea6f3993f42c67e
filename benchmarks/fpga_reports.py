"""The model of FPGA resources against reports of the vendor's tools on hls4ml's projects, published by others.

hls4ml's tutorial ships reports of its CNN for street-view house numbers (pruned to half its weights, all products at
once); others published theirs of the jet-tagging MLP of hls4ml's examples, of LeNet, and of small CNNs whose products
take turns, as ours do. Figures are those of C synthesis, itself an estimate: for the tutorial's CNN the netlist has
half the look-up tables (123,948 of 245,466), which the model takes for the rest too, and 1 % fewer DSPs. No report was
found of layers with more than 125 inputs whose products take turns: beyond them the model extrapolates. Nothing is
synthesized here, so that `--quick` changes nothing.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from statistics import median

from _common import Outcome, Row, main

from edgemtl.targets.hls.resources import NETLIST_SHARE, Product, fifo_resources, logic_of

TUTORIAL = "github.com/fastmachinelearning/hls4ml-tutorial, pruned_cnn (Vivado HLS 2020.1, xcu250)"
JETS = "github.com/taitashaw/hls4ml-fpga-classifier, csynth.rpt (Vitis HLS 2025.2, xczu7ev)"
CAR = "github.com/tsopeter/753-FPGA, deeppicar-stats 1100-000 (Vitis HLS 2024.2, xc7a35t)"
PIXEL = "github.com/Alezander9/ML_FPGAonPixel, cnn_small (Vitis HLS 2023.1, xcvu13p)"
LENET = "github.com/abdennour-GUESSOUM/Lenet5-hls4ml (Vitis HLS 2023.2, xczu9eg)"
HLS4ML = "github.com/fastmachinelearning/hls4ml, test/pytest/baselines/Vitis/2024.1, conv2d with Resource"


@dataclass(frozen=True)
class Reported:
    """A layer as a report has it: LUTs and DSPs, block RAMs of 18 kbit and cycles where it tells them of the layer.

    `share` is the part of the weights that are not zero, for which alone there are products where none take turns.
    `cycles` are those of an image every pixel of which gives one (the report's maximum).
    """

    source: str
    layer: Product
    reuse: int
    luts: int
    dsps: int
    share: float = 1.0
    cycles: int | None = None


def conv(name: str, channels: int, outputs: int, kernel: int, side: int, bits: int, stride: int = 1) -> Product:
    """A convolution without padding that gives `side` x `side` pixels."""
    return Product(name, channels * kernel**2, outputs, kernel, side, side, bits, stride)


def dense(name: str, inputs: int, outputs: int, bits: int) -> Product:
    return Product(name, inputs, outputs, 1, 1, 1, bits)


REPORTS = (
    Reported(TUTORIAL, conv("conv_0", 3, 16, 3, 30, 16), 1, 6334, 208, 0.5),
    Reported(TUTORIAL, conv("conv_1", 16, 16, 3, 13, 16), 1, 38710, 786, 0.5),
    Reported(TUTORIAL, conv("conv_2", 16, 24, 3, 4, 16), 1, 53724, 1300, 0.5),
    Reported(TUTORIAL, dense("dense_0", 96, 42, 16), 1, 59765, 1394, 0.5),
    Reported(TUTORIAL, dense("dense_1", 42, 64, 16), 1, 35083, 1167, 0.5),
    Reported(TUTORIAL, dense("output", 64, 10, 16), 1, 17875, 549),
    Reported(JETS, dense("fc1", 16, 64, 16), 1, 26723, 881),
    Reported(JETS, dense("fc2", 64, 32, 16), 1, 60766, 1509),
    Reported(JETS, dense("fc3", 32, 32, 16), 1, 29141, 810),
    Reported(JETS, dense("output", 32, 5, 16), 1, 4721, 129),
    Reported(HLS4ML, conv("conv2d", 3, 32, 4, 7, 16, 4), 1, 75413, 792),
    Reported(LENET, conv("qconvbn2", 6, 16, 5, 8, 8), 1, 40623, 0, 1751 / 2400),
    Reported(LENET, dense("qdense1", 256, 16, 8), 1, 68975, 0, 2966 / 4096),
    Reported(LENET, dense("qdense2", 16, 16, 8), 1, 5445, 0, 187 / 256),
    Reported(CAR, conv("conv1", 1, 2, 5, 30, 8, 2), 50, 1903, 1, cycles=225281),
    Reported(CAR, conv("q_conv2d", 2, 4, 5, 13, 6, 2), 50, 2496, 4, cycles=49501),
    Reported(CAR, conv("q_conv2d_1", 4, 5, 5, 5, 6, 2), 50, 4502, 5, cycles=9296),
    Reported(CAR, dense("output_1", 125, 1, 6), 25, 3190, 3),
    Reported(PIXEL, Product("conv6", 36, 7, 3, 1, 10, 16), 252, 2509, 1, cycles=12385),
    Reported(PIXEL, Product("conv2", 9, 4, 3, 1, 48, 16), 36, 1393, 1, cycles=6301),
)
READ_PIXELS = {225281: 64 * 64, 49501: 30 * 30, 9296: 13 * 13, 12385: 48, 6301: 150}
"""How many pixels those layers read, padding included, by the cycles that they are reported with."""
FIFOS = (
    (900, 40, 3), (900, 12, 1), (169, 76, 5), (169, 24, 2), (25, 100, 6), (25, 30, 0), (1, 16, 0),
    (576, 132, 8), (576, 48, 3), (144, 48, 3), (64, 400, 23), (64, 128, 8), (16, 128, 8), (1, 544, 0),
)  # fmt: skip
"""Places, bits and block RAMs of 18 kbit of the FIFOs in the reports of CAR and, beside the rule's making, LENET."""


def run(options: argparse.Namespace) -> Outcome:
    """Errors of the model, relative to the reports."""
    rows = []
    for name, limit in LIMITS.items():
        errors = [abs(error) for each in REPORTS if (error := error_of(each, name)) is not None]
        rows.append(Row(f"{name}_median_error", 100 * median(errors), "%", limit))
        rows.append(Row(f"{name}_largest_error", 100 * max(errors), "%"))
    modelled = [2 * fifo_resources(bits, depth).brams for depth, bits, _ in FIFOS]
    wrong = sum(abs(brams - blocks) for brams, (*_, blocks) in zip(modelled, FIFOS, strict=True))
    rows.append(Row("fifo_blocks_wrong", wrong, f"of {sum(blocks for *_, blocks in FIFOS)}", 1, 0))
    return Outcome(rows, {"layers": [raw_of(each) for each in REPORTS], "fifos": modelled})


LIMITS = {"luts": 25.0, "dsps": 40.0, "cycles": 5.0}
"""Of the median error, in per cent."""


def error_of(report: Reported, name: str) -> float | None:
    """How far the model is above a report's figure, relative to it; None where the report has none."""
    reported, modelled = getattr(report, name), modelled_of(report)[name]
    if reported == 0:
        return 0.0 if modelled == 0 else math.inf
    return None if reported is None else modelled / reported - 1


def modelled_of(report: Reported) -> dict[str, float]:
    """The model's figures for a layer of a report, look-up tables as C synthesis counts them."""
    estimate = logic_of(report.layer, report.reuse)
    idle = logic_of(Product("none", 0, 0, 1, 1, 1, report.layer.bits), 1).luts
    cycles = 0.0
    if report.cycles is not None:
        cycles = READ_PIXELS[report.cycles] * Product("one", 1, 1, 1, 1, 1, 16).cycles(report.reuse)
    luts = (idle + (estimate.luts - idle) * report.share) / NETLIST_SHARE
    return {"luts": luts, "dsps": estimate.dsps * report.share, "cycles": cycles}


def raw_of(report: Reported) -> dict[str, object]:
    """A layer's reported and modelled figures, for the result file."""
    reported = {name: getattr(report, name) for name in LIMITS}
    return {
        "source": report.source, "layer": report.layer.name, "reuse": report.reuse, "reported": reported,
        "modelled": modelled_of(report),
    }  # fmt: skip


if __name__ == "__main__":
    main(run, __doc__)
