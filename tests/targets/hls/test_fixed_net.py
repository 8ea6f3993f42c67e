"""A project's arithmetic in torch: against whole numbers, and against the C simulation to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from edgemtl.devices import load_device
from edgemtl.models import MultiTaskNet
from edgemtl.models.graph import Graph, Node, trace
from edgemtl.models.quantization import Ranges, calibrate, simulate
from edgemtl.spaces import load_space
from edgemtl.targets import HlsTarget, emulated, find_target
from edgemtl.targets.hls.fixed import Format, Integers, narrow, saturate
from edgemtl.targets.hls.fixed_net import FixedNet
from edgemtl.targets.hls.layers import Layer, typed_layers
from edgemtl.targets.hls.resources import FIXED_BITS, products_of, smallest
from edgemtl.tasks import by_tensor, make_task
from edgemtl.testing import images, small_net

SIZE = (16, 32)
TASKS = (make_task("depth", "depth"), make_task("scene", "classification", 5))
WIDTHS = list(FIXED_BITS)


@pytest.fixture(scope="module")
def net() -> MultiTaskNet:
    return small_net("fused", "relu", TASKS, SIZE, (8, 8))


@pytest.fixture(scope="module")
def ranges(net: MultiTaskNet) -> Ranges:
    return calibrate(net, images(4, SIZE))


def mixed(net: MultiTaskNet) -> dict[str, str]:
    """Every width, in turns."""
    return {"engine": "fixed", **{name: WIDTHS[number % len(WIDTHS)] for number, name in enumerate(net.blocks)}}


def uniform(net: MultiTaskNet, width: str) -> dict[str, str]:
    return {"engine": "fixed", **dict.fromkeys(net.blocks, width)}


class Whole:
    """The same in whole numbers, one image at a time, without floating point behind the image."""

    def __init__(self, graph: Graph, precision: dict[str, str], ranges: Ranges) -> None:
        self.graph = graph
        self.image, layers = typed_layers(graph, precision, ranges)
        self.layers = {layer.node.name: layer for layer in layers}
        self.values: dict[str, tuple[Integers, int]] = {}

    def run(self, image: torch.Tensor) -> dict[str, np.ndarray]:
        self.values[self.graph.input] = self.image.integers(image[0].numpy()), self.image.fraction
        for node in self.graph.nodes:
            self.values[node.output] = self.result(node, [self.values[name] for name in node.inputs])
        return {name: (self.values[name][0] / 2.0 ** self.values[name][1])[None] for name in self.graph.output_tensors}

    def result(self, node: Node, given: list[tuple[Integers, int]]) -> tuple[Integers, int]:
        layer, (value, fraction) = self.layers.get(node.name), given[0]
        if layer is None:
            return (value.reshape(-1) if node.op == "Flatten" else shuffled(node, value)), fraction
        if node.op in ("Conv", "Gemm"):
            return products(layer, value)
        if node.op == "Add":
            finest = max(each for _, each in given)
            value, fraction = sum(each << (finest - own) for each, own in given), finest  # type: ignore[assignment]
        elif node.op == "GlobalAveragePool":
            assert layer.accum is not None
            total = value.sum((1, 2), keepdims=True) << (layer.accum.fraction - fraction)
            count = value[0].size
            value, fraction = np.sign(total) * (np.abs(total) // count), layer.accum.fraction
        elif node.op == "Resize":
            factor = int(node.attributes["factor"])
            value = value.repeat(factor, 1).repeat(factor, 2)
        else:
            assert node.op == "Relu"
            value = np.maximum(value, 0)
        return moved(value, fraction, layer.result)


def shuffled(node: Node, value: Integers) -> Integers:
    assert node.op == "DepthToSpace"
    return torch.pixel_shuffle(torch.from_numpy(value), int(node.attributes["blocksize"])).numpy()


def products(layer: Layer, value: Integers) -> tuple[Integers, int]:
    assert layer.weight is not None and layer.bias is not None and layer.accum is not None
    weight = layer.weight.integers(layer.node.constants["weight"].numpy())
    bias = layer.bias.integers(layer.node.constants["bias"].numpy()) << (layer.accum.fraction - layer.bias.fraction)
    if weight.ndim == 2:
        return moved(weight @ value + bias, layer.accum.fraction, layer.result)
    (rows, columns), stride = layer.node.attributes["pads"][:2], layer.node.attributes["strides"][0]
    padded = np.pad(value, ((0, 0), (rows, rows), (columns, columns)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, weight.shape[2:], (1, 2))[:, ::stride, ::stride]
    sums = np.einsum("chwij,ocij->ohw", windows, weight) + bias[:, None, None]
    assert np.abs(sums).max() < 2 ** (layer.accum.bits - 1)
    return moved(sums, layer.accum.fraction, layer.result)


def moved(value: Integers, fraction: int, kind: Format) -> tuple[Integers, int]:
    shift = fraction - kind.fraction
    moved = narrow(value, shift, kind.bits) if shift > 0 else saturate(value << -shift, kind.bits)
    return moved, kind.fraction


def test_it_computes_what_whole_numbers_do(net: MultiTaskNet, ranges: Ranges) -> None:
    """Beyond the calibrated ranges too, where values saturate; sums of eight bits are taken in FP32."""
    graph = trace(net)
    for precision in (mixed(net), *(uniform(net, width) for width in WIDTHS)):
        fixed, whole = FixedNet(graph, precision, ranges), Whole(graph, precision, ranges)
        batch = torch.cat([images(1, SIZE, seed=1), 3 * images(1, SIZE, seed=2)])
        outputs = by_tensor(fixed(batch))
        for number, image in enumerate(batch):
            for name, value in whole.run(image[None]).items():
                np.testing.assert_array_equal(outputs[name][number].numpy(), value[0].reshape(outputs[name][0].shape))


@pytest.mark.parametrize("width", [*WIDTHS, "mixed"])
def test_bytes_are_those_of_the_projects_types(net: MultiTaskNet, ranges: Ranges, width: str) -> None:
    precision = mixed(net) if width == "mixed" else uniform(net, width)
    target = HlsTarget(load_device("zcu104"))
    stored = 0
    for layer in typed_layers(trace(net), precision, ranges)[1]:
        if layer.weight is not None and layer.bias is not None:
            weight = layer.node.constants["weight"]
            stored += -(-layer.weight.bits * weight.numel() // 8) + layer.bias.bits * len(weight) // 8
    assert net.plan.cost(precision, storage=target.traits.storage).weight_bytes == stored


@pytest.mark.slow
def test_the_c_simulation_computes_it_to_the_bit(net: MultiTaskNet, ranges: Ranges, tmp_path: Path) -> None:
    pytest.importorskip("hls4ml")
    target, precision = HlsTarget(load_device("zcu104")), mixed(net)
    target.build(net, precision, ranges, tmp_path)
    emulation = emulated(target, net, precision, ranges)
    with target.simulation(net, tmp_path) as run:
        for seed, scale in ((1, 1.0), (2, 3.0)):
            image = scale * images(1, SIZE, seed=seed)
            outputs = by_tensor(run(image.numpy(), [task.name for task in TASKS]))
            for name, value in by_tensor(emulation(image)).items():
                np.testing.assert_array_equal(outputs[name], value.numpy())


def test_fewer_bits_are_less_exact_and_take_less(net: MultiTaskNet, ranges: Ranges) -> None:
    image, blocks = images(4, SIZE, seed=5), load_space("cnn", TASKS).smallest().plan.blocks
    with torch.no_grad():
        exact = by_tensor(net(image))
    errors, memory, logic = [], [], []
    for width in WIDTHS:
        outputs = by_tensor(FixedNet(trace(net), uniform(net, width), ranges)(image))
        errors.append([float((outputs[name] - value).norm() / value.norm()) for name, value in exact.items()])
        taken = smallest(products_of(blocks, {block.parameters: width for block in blocks}))
        memory.append(taken.brams)
        logic.append(taken.luts)
    assert WIDTHS == ["float", "int12", "int10", "int8"]
    assert all(less < more for less, more in zip(memory[1:], memory, strict=False))
    assert all(less < more for less, more in zip(logic[1:], logic, strict=False))
    for task in zip(*errors, strict=True):
        assert list(task) == sorted(task)


def test_a_mean_is_summed_in_a_type_that_holds_it(net: MultiTaskNet, ranges: Ranges) -> None:
    """hls4ml's default, 16 bits with 6 before the point, wraps around."""
    for width in WIDTHS:
        _, layers = typed_layers(trace(net), uniform(net, width), ranges)
        (pool,) = (layer for layer in layers if layer.node.op == "GlobalAveragePool")
        assert pool.accum is not None
        most = 2 * 4 * 2 ** (pool.entering.bits - 1)  # as many pixels as the trunk leaves
        assert most << (pool.accum.fraction - pool.entering.fraction) <= 2 ** (pool.accum.bits - 1)


def test_a_search_scores_by_a_targets_own_arithmetic(net: MultiTaskNet, ranges: Ranges) -> None:
    image, precision = images(1, SIZE), {"engine": "fp32", **dict.fromkeys(net.blocks, "int8")}
    for name, device in (("hls", "zcu104"), ("onnxruntime", "host")):
        target = find_target(name, load_device(device))
        outputs = by_tensor(emulated(target, net, precision, ranges)(image))
        own = (
            FixedNet(trace(net), precision, ranges)
            if name == "hls"
            else simulate(net, precision, ranges, target.scheme)
        )
        assert all(torch.equal(outputs[task], value) for task, value in by_tensor(own(image)).items())


def test_a_space_offers_an_fpga_every_width_and_others_eight_bits() -> None:
    space = load_space("cnn", TASKS)
    for name, device, widths in (("hls", "zcu104", WIDTHS), ("onnxruntime", "host", ["float", "int8"])):
        choices = space.for_target(find_target(name, load_device(device)).traits).choices
        assert {tuple(c.options) for c in choices if c.name.endswith(".precision") and c.precision_of != "engine"} == {
            tuple(widths)
        }
