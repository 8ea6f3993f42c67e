"""The plan of a net of one's own: what its narrower forms cost, without making them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from own_nets import SIZE, residual_net, saved

from edgemtl.nas.precision.forms import NarrowForms
from edgemtl.nas.precision.net_plan import channels_in
from edgemtl.nas.precision.net_space import net_space
from edgemtl.nas.prune import Fit
from edgemtl.own import OwnPrecision, block_records, open_net, propose_tasks
from edgemtl.spaces import Space


def test_channels_and_precisions_are_the_choices(space: Space) -> None:
    options = {choice.name: choice.options for choice in space.choices}
    assert options["body.stem.channels"] == options["body.narrow.channels"] == (8, 16, 24)
    precisions = {name: each for name, each in options.items() if name.endswith(".precision")}
    assert len(precisions) == len(options) - 2 >= 3 and set(precisions.values()) == {("float", "int8")}
    owners = {choice.name: choice.task for choice in space.choices}
    assert set(owners.values()) == {None, "map", "pose"}


def test_what_a_space_is_hashed_by_has_an_order(forms_of: Callable[..., NarrowForms]) -> None:
    """A set of names has another one in every process."""
    opened = open_net("own_nets:build_some_biases", SIZE)
    space = net_space(forms_of(opened, propose_tasks(opened), "onnxruntime"))
    named = [block["biased"] for block in space.spec.model_dump(mode="json")["blocks"]]
    assert any(len(each) > 1 for each in named)
    assert named == [sorted(each) for each in named]


@pytest.mark.parametrize("stem", [8, 16, 24])
@pytest.mark.parametrize("narrow", [8, 24])
def test_a_plan_counts_what_the_graph_of_that_form_is_counted_at(
    forms: NarrowForms, space: Space, stem: int, narrow: int
) -> None:
    design = space.design({**space.largest(), "body.stem.channels": stem, "body.narrow.channels": narrow})
    form = forms.proposal(f"{stem} and {narrow}", Fit(channels_in(space.spec, design), {})).setup
    graph = form.bench.cost(OwnPrecision({"engine": "fp32"}))
    assert design.cost().flops == graph.flops
    assert design.cost().params == graph.params
    for task, path in graph.paths.items():
        assert design.cost(task).flops == path.flops
    assert {block.name for block in design.plan.blocks if block.convs} == set(form.blocks)


def test_bytes_fall_with_int8_and_tasks_pay_for_their_own(space: Space) -> None:
    largest = space.largest()
    eight = space.largest("int8")
    assert eight.cost().weight_bytes < 0.5 * largest.cost().weight_bytes
    assert eight.cost().flops == largest.cost().flops
    assert largest.cost("map").flops < largest.cost().flops
    assert space.smallest().cost().flops < 0.5 * largest.cost().flops


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("net", ["residual", "some biases"])
def test_parameters_and_bytes_in_int8_are_those_of_the_rounded_graph(
    forms_of: Callable[..., NarrowForms], tmp_path: Path, net: str, target: str
) -> None:
    """But for constants that are no parameters, and for rounded tensors that two layers read, counted for each."""
    spec = str(saved(residual_net(), tmp_path)) if net == "residual" else "own_nets:build_some_biases"
    opened = open_net(spec, SIZE)
    forms = forms_of(opened, propose_tasks(opened), target)
    space = net_space(forms)
    fewest = {choice.name: choice.options[0] for choice in space.choices if choice.name.endswith(".channels")}
    assert fewest
    for number, channels in enumerate(({}, fewest)):
        design = space.design({**space.largest("int8"), **channels})
        proposal = forms.proposal(f"form {number}", Fit(channels_in(space.spec, design), {}))
        setup = proposal.setup
        graph = setup.bench.cost(proposal.precision("fp32", setup.blocks))
        tables = [table for block in block_records(setup.bench.model, setup.structure) for table in block.weights]
        stored = graph.weight_bytes - sum(table.bytes for table in tables if not table.params)
        layers = sum(len(block.convs) for block in design.plan.blocks)
        assert design.cost().params == graph.params
        assert stored <= design.cost().weight_bytes <= stored + 10 * layers
