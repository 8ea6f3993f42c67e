"""The decoders' own block: a convolution, then more of which each adds to what it reads."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from small import TASKS, difference, pictures, scrambled
from torch import Tensor, nn

from edgemtl.models import MultiTaskNet, Supernet, recalibrate
from edgemtl.models.nets.blocks import build_block
from edgemtl.spaces import BlockPlan, ConvPlan, Design, Space
from edgemtl.tasks import by_tensor

NAMES = ("conv1", "conv2", "conv3")


def refinement(activation: str = "relu") -> nn.Module:
    """Three convolutions of four channels, the first reading six, with statistics and scales of their own."""
    inputs = (6, 4, 4)
    convs = tuple(ConvPlan(name, each, 4, 3, 1, 1, 5, 7) for name, each in zip(NAMES, inputs, strict=True))
    block = build_block(BlockPlan("body", "refinement", "depth", convs, ("neck",), activation=activation, tied=NAMES))
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low in ((module.weight, 0.5), (module.bias, -0.5), (module.running_mean, -0.5)):
                nn.init.uniform_(tensor, low, low + 1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return block.double().eval()


def convolved(block: nn.Module, name: str, x: Tensor, high: float) -> Tensor:
    """By the definition: normalised after the convolution, then cut at zero (and at `high`)."""
    state = {key.removeprefix(f"{name}."): value for key, value in block.state_dict().items()}
    y = F.conv2d(x, state["conv.weight"], padding=1)
    mean, variance = (state[f"norm.running_{which}"].view(-1, 1, 1) for which in ("mean", "var"))
    scale, shift = (state[f"norm.{which}"].view(-1, 1, 1) for which in ("weight", "bias"))
    return ((y - mean) / (variance + 1e-5).sqrt() * scale + shift).clamp(0, high)


def test_every_convolution_but_the_first_adds_to_what_it_reads() -> None:
    for activation, high in (("relu", float("inf")), ("relu6", 6.0)):
        block, x = refinement(activation), torch.randn(2, 6, 5, 7, dtype=torch.float64)
        first = convolved(block, "conv1", x, high)
        second = first + convolved(block, "conv2", first, high)
        third = second + convolved(block, "conv3", second, high)
        torch.testing.assert_close(block(x), third, rtol=1e-9, atol=1e-9)
        assert float(first.abs().max()) > 0.1 and float((third - first).abs().max()) > 0.1


def pair(space: Space) -> tuple[Design, Design]:
    """The largest design, and the same with the shallowest decoders."""
    shallow = {f"{task}.depth": 1 for task in ("semseg", "depth")}
    return space.largest(), space.design({**space.largest(), **shallow})


def test_a_shallower_decoder_is_the_beginning_of_a_deeper_one(space: Space) -> None:
    """Up to the second convolution the two compute the same numbers; where that gives nothing they are one net."""
    supernet, image = scrambled(Supernet.of(space), 4), pictures(2, space.size)
    with torch.no_grad():
        for task in ("semseg", "depth"):
            for name in ("weight", "bias"):
                supernet.shared[f"blocks.{task}_body.conv2.norm.{name}"].zero_()
    deep, shallow = (supernet.extract(design) for design in pair(space))
    assert len(deep.plan.blocks) == len(shallow.plan.blocks) and deep.plan.cost().flops > shallow.plan.cost().flops
    for net in (deep, shallow):
        recalibrate(net, [image])
    with torch.no_grad():
        assert difference(by_tensor(deep(image)), by_tensor(shallow(image))) == 0


def test_a_deeper_decoder_differs_by_what_it_adds(space: Space) -> None:
    image = pictures(2, space.size)
    supernet = scrambled(Supernet.of(space), 5)
    features = []
    for design in pair(space):
        net = supernet.extract(design)
        recalibrate(net, [image])
        with torch.no_grad():
            features.append(net.run_all(image))
    (deep, shallow), body = features, "depth_body"
    added = deep[body] - shallow[body]
    assert float(added.abs().max()) > 0.1 and float(added.min()) >= -1e-6, "what is added has been cut at zero"


def test_a_refinement_can_be_traced_whatever_its_depth(space: Space) -> None:
    net = MultiTaskNet(space.largest().plan, TASKS).eval()
    sums = [node.name for node in torch.fx.symbolic_trace(net).graph.nodes if node.op == "call_function"]
    assert sum(name.startswith("add") for name in sums) >= 2
