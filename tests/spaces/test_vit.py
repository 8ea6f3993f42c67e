from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from experts import TASKS, experts_yaml
from small import small_space
from torch import nn

from edgemtl.errors import UserError
from edgemtl.models import Supernet
from edgemtl.models.graph.graph import trace
from edgemtl.spaces import Space, load_space
from edgemtl.spaces.families.vit import _TORCH_NAMES, window
from edgemtl.tasks import Task, by_tensor, make_task

TINY = experts_yaml("kept: [2, 4, 6], top_k: [1, 2]", "[1, 2]", "[2, 4]", "[32, 64]", "{width: [8, 16], depth: [1, 2]}")


def space(folder: Path, text: str = TINY, tasks: tuple[Task, ...] = TASKS) -> Space:
    return small_space(folder, tasks, text)


@pytest.fixture
def tiny(tmp_path: Path) -> Space:
    return space(tmp_path)


def test_the_shipped_space_opens() -> None:
    shipped = load_space("moe-vit", TASKS)
    assert shipped.smallest().cost().flops < shipped.largest().cost().flops / 2


@pytest.mark.parametrize("name", ["type", "half", "train", "keys"])
def test_a_task_may_be_called_like_what_torch_modules_have(tmp_path: Path, name: str) -> None:
    tasks = (make_task(name, "classification", 2), make_task("depth", "depth"))
    named = space(tmp_path, tasks=tasks)
    supernet = Supernet.of(named)
    outputs = by_tensor(supernet(torch.randn(2, 3, 64, 96), named.largest()).outputs)
    assert outputs[name].shape == (2, 2)
    outputs[name].sum().backward()
    trained = {part for part, p in supernet.shared.items() if p.grad is not None and ".routers." in part}
    assert trained == {
        f"blocks.{b}.mixture.routers.{name}_router.{p}" for b in ("b2", "b4") for p in ("weight", "bias")
    }
    assert by_tensor(supernet.extract(named.smallest())(torch.randn(1, 3, 64, 96)))[name].shape == (1, 2)


@pytest.mark.parametrize("seed", range(5))
def test_any_design_is_cut_exactly_out_of_the_supernet(tiny: Space, seed: int) -> None:
    torch.manual_seed(0)
    supernet, image = Supernet.of(tiny), torch.randn(2, 3, 64, 96)
    design = tiny.random(random.Random(seed))
    net = supernet.extract(design)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train()  # as the supernet does: the batch's own statistics
            module.track_running_stats = False
    with torch.no_grad():
        expected = by_tensor(supernet(image, design).outputs)
        found = by_tensor(net(image))
    for task in TASKS:
        assert torch.allclose(found[task.name], expected[task.name], atol=1e-5)
    assert found["depth"].shape == (2, 1, 64, 96)
    assert found["kind"].shape == (2, 4)


def test_training_sees_what_routers_do(tiny: Space) -> None:
    """The largest design has two layers of experts with a router for each of three tasks."""
    supernet = Supernet.of(tiny)
    routing = supernet(torch.randn(2, 3, 64, 96), tiny.largest()).routing
    assert routing is not None
    routing.backward()
    routers = [p for name, p in supernet.shared.items() if ".routers." in name and name.endswith("weight")]
    assert len(routers) == 6
    assert all(p.grad is not None and bool(p.grad.any()) for p in routers)


@pytest.mark.parametrize("seed", range(3))
def test_parameters_are_counted_as_the_net_has_them(tiny: Space, seed: int) -> None:
    """Batch normalisation, which is folded, has two numbers a channel where a folded bias is one."""
    design = tiny.random(random.Random(seed))
    net = Supernet.of(tiny).extract(design)
    folded = sum(m.num_features for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    assert design.cost().params == sum(p.numel() for p in net.parameters()) - folded


def test_a_task_counts_its_own_experts_only(tiny: Space) -> None:
    """Paths of one task are far below all tasks': each runs the blocks after the first experts by itself."""
    design = tiny.largest()
    paths = [design.cost([task.name]) for task in TASKS]
    assert design.cost().flops < sum(path.flops for path in paths)
    few = tiny.design({**design, "depth.experts": 2})
    assert few.cost(["depth"]).params < paths[1].params
    assert few.cost(["kind"]) == paths[2]
    assert few.cost(["depth"]).flops == pytest.approx(paths[1].flops, rel=0.01), (
        "top-k says how many, not how many are kept"
    )


def test_a_subset_runs_its_own_blocks(tiny: Space) -> None:
    torch.manual_seed(0)
    net, image = Supernet.of(tiny).extract(tiny.largest()), torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(by_tensor(net.subset(["depth"])(image))["depth"], by_tensor(net(image))["depth"])
    assert not any("semseg" in step.name for step in net.subset(["depth"]).wiring)


def test_windows_are_places_on_a_ring() -> None:
    assert window(16, 4, 0, 4) == (0, 1, 2, 3)
    assert window(16, 4, 3, 4) == (12, 13, 14, 15)
    assert window(6, 4, 2, 3) == (4, 5, 0, 1)
    for kept in (1, 3, 6):
        assert window(6, kept, 1, 3) == window(6, 6, 1, 3)[:kept], "a smaller window is the beginning of a larger one"


def test_a_dense_space_has_one_trunk_for_all(tmp_path: Path) -> None:
    dense = space(tmp_path, "".join(line for line in TINY.splitlines(True) if "experts" not in line))
    blocks = dense.largest().plan.blocks
    assert not [block for block in blocks if block.task is not None and block.kind in ("tokens", "map")]


def test_patches_without_a_stem(tmp_path: Path) -> None:
    cut = space(tmp_path, TINY.replace("stem: [8, 8, 16]", "stem: []"))
    net = Supernet.of(cut).extract(cut.largest())
    assert by_tensor(net(torch.randn(1, 3, 64, 96)))["semseg"].shape == (1, 3, 64, 96)
    assert cut.largest().plan.blocks[0].convs[0].kernel == 16


@pytest.mark.parametrize(("preset", "params"), [("tiny", 5_717_416), ("small", 22_050_664), ("base", 86_567_656)])
def test_presets_have_the_sizes_of_deit(tmp_path: Path, preset: str, params: int) -> None:
    """All published parameters, less patches, class token, positions, norms and the classifier of 1000 classes."""
    text = f"""\
schema: edgemtl.space/1
family: vit
input: [224, 224]
vit: {{preset: {preset}, decoder: {{width: [16]}}}}
"""
    made = space(tmp_path, text, (make_task("kind", "classification", 4),)).largest()
    blocks = [block for block in made.plan.blocks if block.kind == "tokens"]
    width = blocks[0].convs[0].inputs
    rest = (3 * 16**2 + 1) * width + 198 * width + (12 * 4 + 2) * width + 1000 * (width + 1)
    assert sum(conv.params for block in blocks for conv in block.convs) + rest == params
    assert {block.heads for block in blocks} == {width // 64}


def test_what_is_given_goes_before_a_preset(tmp_path: Path) -> None:
    text = "schema: edgemtl.space/1\nfamily: vit\ninput: [64, 96]\n"
    given = space(tmp_path, f"{text}vit: {{preset: tiny, depth: [2, 4], decoder: {{width: [8], depth: [1]}}}}")
    assert {choice.name: choice.options for choice in given.choices}["vit.depth"] == (2, 4)
    with pytest.raises(UserError, match="'tiny', 'small' or 'base'"):
        space(tmp_path, f"{text}vit: {{preset: huge, decoder: {{width: [8], depth: [1]}}}}")


def test_one_router_for_all_tasks_gives_them_one_trunk(tmp_path: Path) -> None:
    shared = space(tmp_path, TINY.replace("top_k: [1, 2]", "top_k: [1, 2], router: shared"))
    blocks = shared.largest().plan.blocks
    assert not [block for block in blocks if block.task is not None and block.kind == "tokens"]
    assert len([block for block in blocks if block.experts]) == 2


def test_a_gate_that_is_told_the_task_serves_each_in_its_own_way(tmp_path: Path) -> None:
    conditioned = space(tmp_path, TINY.replace("top_k: [1, 2]", "top_k: [1, 2], router: conditioned"))
    torch.manual_seed(0)
    supernet = Supernet.of(conditioned)
    assert {name.split(".mixture.")[1] for name in supernet.shared if ".gate." in name and "b2" in name} == {
        f"gate.{part}.{kind}" for part in ("embed.0", "embed.2", "score") for kind in ("weight", "bias")
    }
    found = supernet(torch.randn(2, 3, 64, 96), conditioned.largest())
    (found.routing + sum(output.sum() for output in by_tensor(found.outputs).values())).backward()
    assert all(bool(p.grad.any()) for name, p in supernet.shared.items() if ".gate." in name and p.grad is not None)
    for design in (conditioned.largest(), conditioned.design({**conditioned.largest(), "depth.experts": 2})):
        net, routers = supernet.extract(design), design.plan
        counted = sum(block.experts.router.params for block in routers.blocks if block.experts)
        constants = [node.constants for node in trace(net).nodes if node.op == "Router"]
        assert counted == sum(tensor.numel() for found in constants for tensor in found.values())


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("kept: [2, 4, 6]", "kept: [2, 8]", "8 experts are kept of 6"),
        ("top_k: [1, 2]", "top_k: [1, 3]", "a token goes to 3 experts where a task may keep only 2"),
        ("kept: [2, 4, 6]", "kept: [0, 4]", "greater than 0"),
        ("top_k: [1, 2]", "top_k: [1, 2], capacity: 0.5", "capacity: Input should be greater than or equal to 1"),
        ("stem: [8, 8, 16]", "stem: [8, 8]", "stem"),
    ],
)
def test_what_cannot_route_is_refused(tmp_path: Path, old: str, new: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        space(tmp_path, TINY.replace(old, new))


def test_a_size_that_patches_do_not_divide_is_refused() -> None:
    with pytest.raises(UserError, match="multiples of 16"):
        load_space("moe-vit", TASKS, (100, 96))


def test_a_task_called_like_a_block_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'b1' is called like a part of the trunk"):
        space(tmp_path, tasks=(make_task("b1", "depth"),))


def test_no_router_is_called_like_an_attribute_of_a_torch_module() -> None:
    assert {name for name in dir(torch.nn.ModuleDict()) if not name.startswith("_")} <= _TORCH_NAMES
