"""Conformance suite for families of nets: inherit `FamilyConformance` and provide a space of the family."""

from __future__ import annotations

import random
from collections.abc import Mapping
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from edgemtl.blocks import BlockCost, cost_by_owner
from edgemtl.models import MultiTaskNet, Supernet, recalibrate, sort_channels
from edgemtl.models.graph import run_graph, trace
from edgemtl.nas.prune import cut_channels, net_groups
from edgemtl.profiling import count_graph
from edgemtl.report import draw_net
from edgemtl.spaces import Design, Space, prunable_channels
from edgemtl.targets import emit

__all__ = ["FamilyConformance"]

SEEDS = range(4)


class FamilyConformance:
    """The tests of one family, on a space that is small enough to build many nets of.

    A subclass has a fixture `space` (of scope class) that gives it.
    """

    @pytest.fixture(scope="class")
    @classmethod
    def space(cls) -> Space:
        """A space of the family, for tasks of every kind of decoder."""
        raise NotImplementedError("give the conformance suite a space: a fixture of scope class called space")

    @pytest.fixture(params=SEEDS, scope="class")
    @classmethod
    def design(cls, space: Space, request: pytest.FixtureRequest) -> Design:
        """Any design; the first is the largest."""
        rng = random.Random(request.param)
        return space.random(rng) if request.param else space.largest()

    @pytest.fixture(scope="class")
    @classmethod
    def supernet(cls, space: Space) -> Supernet:
        """The space's supernet, with weights of no meaning."""
        torch.manual_seed(0)
        return Supernet.of(space)

    @pytest.fixture(scope="class")
    @classmethod
    def net(cls, supernet: Supernet, design: Design) -> MultiTaskNet:
        """The design's own net, ready to be run."""
        net = supernet.extract(design)
        recalibrate(net, [_image(net, 4)])
        return net

    def test_choices_have_names_of_their_own_and_options_in_order(self, space: Space) -> None:
        """No two choices share a name; options grow."""
        names = [choice.name for choice in space.choices]
        assert len(set(names)) == len(names)
        for choice in space.architecture:
            assert len(set(choice.options)) == len(choice.options) > 1
            numbers = [option for option in choice.options if isinstance(option, int)]
            assert all(before < after for before, after in pairwise(numbers)), choice.name

    def test_a_design_is_its_own_canonical_form(self, space: Space, design: Design) -> None:
        """A design of a design's options, or of its genome, is that design."""
        assert space.design(dict(design)) == design
        assert space.decode(space.encode(design)) == design

    def test_what_runs_the_same_is_the_same_design(self, space: Space, design: Design) -> None:
        """A choice that changes nothing under others is idle, and holds its first option."""
        for choice in space.choices:
            for option in choice.options:
                other = space.design({**design, choice.name: option})
                same = other.plan == design.plan and other.precision == design.precision
                assert same == (other == design), f"{choice.name}={option} changes nothing: let it be idle"

    def test_blocks_run_in_order_and_none_for_nobody(self, space: Space, design: Design) -> None:
        """Every block reads what ran before it, and some task needs it."""
        plan, produced = design.plan, {"image"}
        for block in plan.blocks:
            assert block.name not in produced and set(block.inputs) <= produced, block.name
            produced.add(block.name)
        tasks = [task.name for task in space.tasks]
        assert {block.name for block in plan.path(tasks)} | {"image"} == produced
        assert {block.task for block in plan.blocks} - {None} == set(tasks)

    def test_the_family_announces_every_block(self, space: Space, design: Design) -> None:
        """`Family.blocks` names each block, whose it is, and when it exists."""
        slots = space.family.blocks(space.spec, space.tasks)
        for block in design.plan.blocks:
            slot = slots[block.origin]
            assert slot.task in (None, block.task), block.name
            assert all(design[choice] in options for choice, options in slot.active_if.items()), block.name

    def test_every_designs_parameters_are_prefixes_of_the_largests(self, supernet: Supernet, design: Design) -> None:
        """One supernet serves every design."""
        with torch.device("meta"):
            net = MultiTaskNet(design.plan, supernet.tasks)
        origins = {block.parameters: block.origin for block in design.plan.blocks}
        for name, parameter in net.named_parameters():
            _, block, rest = name.split(".", 2)
            part = supernet.part(f"blocks.{origins[block]}.{rest}", tuple(parameter.shape))
            assert part.shape == parameter.shape, name

    def test_what_the_plan_names_has_the_shape_that_it_says(self, net: MultiTaskNet) -> None:
        """Layers of the net are called as in the plan, and are as large."""
        for block in net.plan.blocks:
            for conv in block.convs:
                path = f"blocks.{block.parameters}.{conv.name}"
                layer = net.get_submodule(path)
                weight = layer.get_parameter("conv.weight" if hasattr(layer, "conv") else "weight")
                assert tuple(weight.shape[:2]) == (conv.outputs, conv.inputs // conv.groups), path

    def test_sorted_channels_compute_the_same(self, space: Space) -> None:
        """Channels that the plan ties can be reordered together without a change."""
        torch.manual_seed(1)
        supernet = Supernet.of(space)
        nets = [supernet.extract(space.largest())]
        sort_channels(supernet)
        nets.append(supernet.extract(space.largest()))
        image = _image(nets[0], 2)
        with torch.no_grad():
            before, after = (_tensors(_with_batch_statistics(net)(image)) for net in nets)
            for one, other in zip(before, after, strict=True):
                torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3 * float(one.abs().max()))

    def test_the_graph_computes_what_the_net_does(self, net: MultiTaskNet) -> None:
        """Every layer has an operator, which computes the same."""
        image = _image(net, 1)
        with torch.no_grad():
            expected = _tensors(net(image))
        for one, other in zip(_tensors(run_graph(trace(net), image)), expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4 * float(other.abs().max()))

    def test_the_plans_cost_is_the_exported_graphs(self, net: MultiTaskNet, design: Design) -> None:
        """FLOPs are exact, for all tasks and each alone; parameters but for a few constants."""
        counted, plan = count_graph(emit(net)), design.plan
        for counts, tasks in ((counted.total, None), *((path, task) for task, path in counted.paths.items())):
            cost = plan.cost(tasks=tasks)
            assert counts.flops == cost.flops, tasks
            assert counts.params == pytest.approx(cost.params, abs=2 * len(plan.blocks)), tasks

    def test_blocks_are_all_recorded_and_sum_to_the_cost(self, space: Space, design: Design) -> None:
        """The records sum to the design's cost, for all tasks and each alone."""
        assert [block.name for block in design.blocks] == [block.name for block in design.plan.blocks]
        cost, total = design.cost(), sum(cost_by_owner(design.blocks).values(), BlockCost())
        assert (total.flops, total.params, total.bytes) == (cost.flops, cost.params, cost.weight_bytes)
        for task in space.tasks:
            own = [block for block in design.blocks if task.name in block.tasks]
            alone, total = design.cost(task.name), sum(cost_by_owner(own).values(), BlockCost())
            assert (total.flops, total.params, total.bytes) == (alone.flops, alone.params, alone.weight_bytes)

    def test_every_block_is_drawn(self, space: Space, design: Design) -> None:
        """A report's picture holds every block."""
        picture = draw_net(design.blocks, [task.name for task in space.tasks], "")
        for block in design.blocks:
            assert any(f"{mark}{block.name}{end}" in picture for mark in ('"', ">") for end in ":,"), block.name

    def test_every_group_of_channels_can_be_pruned(self, net: MultiTaskNet) -> None:
        """Half of each group's channels, or one head, leave the net that the narrower plan means."""
        groups = net_groups(net)
        assert {name for group in groups for name in group.convolutions} <= prunable_channels(net.plan).keys()
        for group in groups:
            keep = range(0, group.size, 2) if group.step == 1 else range(group.step)
            if len(keep) == group.size:
                continue
            narrow = cut_channels(net, [group], {group.name: [list(keep)] * len(group.parts)})
            expected = MultiTaskNet(narrow.plan, net.tasks).state_dict()
            assert {name: t.shape for name, t in narrow.state_dict().items()} == {
                n: t.shape for n, t in expected.items()
            }
            assert narrow.plan.cost().flops < net.plan.cost().flops, group.name
            with torch.no_grad():
                assert [t.shape for t in _tensors(narrow(_image(net, 1)))] == [
                    t.shape for t in _tensors(net(_image(net, 1)))
                ]


def _image(net: MultiTaskNet, count: int) -> Tensor:
    return torch.randn(count, 3, *net.input_size, generator=torch.Generator().manual_seed(0))


def _tensors(value: Mapping[str, object] | object) -> list[Tensor]:
    """Every tensor of nested dictionaries, in order."""
    if isinstance(value, Mapping):
        return [tensor for each in value.values() for tensor in _tensors(each)]
    assert isinstance(value, Tensor)
    return [value]


def _with_batch_statistics(net: MultiTaskNet) -> MultiTaskNet:
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()
    return net
