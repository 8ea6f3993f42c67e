from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small import TASKS, designs, difference, pictures, scrambled, with_batch_statistics
from torch import Tensor, nn

from edgemtl.models import MultiTaskNet, Supernet, recalibrate
from edgemtl.spaces import Space, load_space
from edgemtl.tasks import by_tensor

SIZE = (32, 64)
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def supernet(space: Space) -> Supernet:
    return scrambled(Supernet.of(space), 1)


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_extracted_net_equals_supernet_under_its_design(space: Space, supernet: Supernet, seed: int) -> None:
    design = space.random(random.Random(seed))
    image = pictures(3, SIZE, seed % 1000)
    with torch.no_grad():
        expected = by_tensor(supernet(image, design).outputs)
        found = by_tensor(with_batch_statistics(supernet.extract(design))(image))
    assert difference(found, expected) < TOLERANCE


@pytest.mark.parametrize("name", ["cnn", "mobilenetv2"])
def test_extracted_net_equals_supernet_in_shipped_spaces(name: str) -> None:
    space = load_space(name, TASKS, (32, 64))
    supernet = scrambled(Supernet.of(space), 2)
    image = pictures(3, SIZE)
    for design in designs(space, 2):
        with torch.no_grad():
            expected = by_tensor(supernet(image, design).outputs)
            found = by_tensor(with_batch_statistics(supernet.extract(design))(image))
        assert difference(found, expected) < TOLERANCE


def test_recalibrated_net_in_evaluation_equals_supernet_on_that_batch(space: Space, supernet: Supernet) -> None:
    image = pictures(4, SIZE)
    for design in designs(space, 4):
        net = supernet.extract(design)
        counts = _values_per_channel(net, image)
        recalibrate(net, [image])
        for module, count in counts.items():
            module.running_var *= (count - 1) / count  # a batch is normalised with the biased variance
        assert not any(module.training for module in net.modules())
        with torch.no_grad():
            assert difference(by_tensor(net(image)), by_tensor(supernet(image, design).outputs)) < TOLERANCE


def test_recalibration_is_the_plain_average_over_batches(space: Space, supernet: Supernet) -> None:
    net = supernet.extract(space.largest())
    weights = {name: parameter.clone() for name, parameter in net.named_parameters()}
    batches = [pictures(4, SIZE, seed) * (1 + seed) for seed in range(3)]
    seen: dict[nn.Module, list[tuple[Tensor, Tensor]]] = defaultdict(list)
    hooks = _on_norms(net, lambda module, x: seen[module].append((x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=True))))
    with torch.no_grad():
        for batch in batches:
            with_batch_statistics(net)(batch)
    for hook in hooks:
        hook.remove()
    recalibrate(net, iter(batches))
    assert len(seen) > 20
    for module, values in seen.items():
        assert isinstance(module, nn.BatchNorm2d)
        means, variances = (torch.stack(column).mean(0) for column in zip(*values, strict=True))
        torch.testing.assert_close(module.running_mean, means, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(module.running_var, variances, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(weights[name], parameter) for name, parameter in net.named_parameters())


def test_recalibration_forgets_what_was_measured_before(space: Space, supernet: Supernet) -> None:
    image = pictures(4, SIZE)
    once, twice = supernet.extract(space.smallest()), supernet.extract(space.smallest())
    recalibrate(once, [image])
    recalibrate(twice, [image * 9])
    recalibrate(twice, [image])
    assert difference(by_tensor(once(image)), by_tensor(twice(image))) == 0


def test_recalibration_runs_no_head_and_measures_what_the_whole_net_does(space: Space, supernet: Supernet) -> None:
    image, run = pictures(4, SIZE), set[str]()
    whole, part = supernet.extract(space.largest()), supernet.extract(space.largest())
    for name, block in part.blocks.items():
        block.register_forward_hook(lambda *_, name=name: run.add(name))
    recalibrate(whole, [image], whole.run_all)
    recalibrate(part, [image])
    assert part.blocks.keys() - run == {"semseg_head", "depth_head", "kind_neck", "kind_head"}
    for name, value in whole.state_dict().items():
        assert torch.equal(value, part.state_dict()[name])


def test_a_design_trains_its_prefixes_and_nothing_else(space: Space) -> None:
    supernet = Supernet.of(space)
    sum(
        output.square().sum() for output in by_tensor(supernet(pictures(2, SIZE), space.smallest()).outputs).values()
    ).backward()
    lower = supernet.shared["blocks.b_1.pointwise.conv.weight"]
    assert lower.shape == (24, 48, 1, 1)
    assert lower.grad is not None
    assert bool((lower.grad[:8, :16] != 0).all())
    assert int((lower.grad != 0).sum()) == 8 * 16
    depthwise = supernet.shared["blocks.b_1.depthwise.conv.weight"]
    assert depthwise.shape == (48, 1, 7, 7)
    assert depthwise.grad is not None
    centre = depthwise.grad[:16, :, 2:5, 2:5]
    assert int((depthwise.grad != 0).sum()) == int((centre != 0).sum()) > 16
    assert supernet.shared["blocks.b_3.pointwise.conv.weight"].grad is None


def test_features_are_the_trunk_s(space: Space, supernet: Supernet) -> None:
    image = pictures(2, SIZE)
    design = space.largest()
    with torch.no_grad():
        found = supernet(image, design)
        expected = with_batch_statistics(supernet.extract(design)).run_all(image)
    assert list(found.trunk) == [block.name for block in design.plan.blocks if block.task is None]
    assert difference(found.trunk, {name: expected[name] for name in found.trunk}) < TOLERANCE
    assert found.routing is None


def test_extracted_nets_own_their_weights(space: Space) -> None:
    supernet = Supernet.of(space)
    net = supernet.extract(space.largest())
    before = supernet.shared["blocks.stem.conv.conv.weight"].clone()
    with torch.no_grad():
        net.blocks["stem"].conv.conv.weight.zero_()  # type: ignore[union-attr]
    assert torch.equal(supernet.shared["blocks.stem.conv.conv.weight"], before)


def test_envelopes_use_every_parameter_and_no_design_needs_another(space: Space, supernet: Supernet) -> None:
    def names(net: MultiTaskNet) -> set[str]:
        return {name for name, _ in net.named_parameters()}

    with torch.device("meta"):
        used = set().union(*(names(MultiTaskNet(plan, TASKS)) for plan in supernet.envelopes))
    assert used == set(supernet.shared)
    assert len(set(supernet.envelopes)) == len(supernet.envelopes)


def test_fresh_weights_depend_on_the_seed_alone(space: Space) -> None:
    torch.manual_seed(11)
    first = Supernet.of(space)
    torch.manual_seed(11)
    second = Supernet.of(space)
    assert all(torch.equal(second.shared[name], parameter) for name, parameter in first.shared.items())
    # and not on the order of a set, which is another one in every process
    largest = [name for name, _ in MultiTaskNet(space.largest().plan, TASKS).named_parameters()]
    assert list(first.shared)[: len(largest)] == largest


def _on_norms(net: nn.Module, see: Callable[[nn.Module, Tensor], None]) -> list[torch.utils.hooks.RemovableHandle]:
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    return [module.register_forward_pre_hook(lambda module, inputs: see(module, inputs[0])) for module in norms]


def _values_per_channel(net: nn.Module, image: Tensor) -> dict[nn.BatchNorm2d, int]:
    counts: dict[nn.BatchNorm2d, int] = {}
    hooks = _on_norms(net, lambda module, x: counts.update({module: x.numel() // x.shape[1]}))  # type: ignore[dict-item]
    net(image)
    for hook in hooks:
        hook.remove()
    return counts


def test_dense_heads_begin_without_a_checkerboard(space: Space) -> None:
    with torch.no_grad():
        outputs = by_tensor(Supernet.of(space)(pictures(2, SIZE), space.largest()).outputs)
    for name in ("semseg", "depth"):
        corner = outputs[name][..., ::4, ::4]
        for row, column in ((0, 3), (2, 1), (3, 3)):
            torch.testing.assert_close(outputs[name][..., row::4, column::4], corner)
