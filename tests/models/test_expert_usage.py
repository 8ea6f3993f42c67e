from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from experts import TASKS, experts_yaml, largest_net

from edgemtl.errors import UserError
from edgemtl.models import ExpertUsage, MultiTaskNet, expert_usage
from edgemtl.models.nets.experts import Router

YAML = experts_yaml("kept: [4], top_k: [2]")
TOKENS = 4 * 6


@pytest.fixture
def net(tmp_path: Path) -> MultiTaskNet:
    return largest_net(tmp_path, YAML)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.randn(5, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def test_choices_are_those_of_the_routers(net: MultiTaskNet, images: torch.Tensor) -> None:
    """Against each router's own output, image by image and token by token."""
    routers = {}
    hooks = [
        module.register_forward_hook(lambda _, __, gates, name=name: routers.update({name: gates}))
        for name, module in net.named_modules()
        if isinstance(module, Router)
    ]
    with torch.no_grad():
        net.eval()(images)
    for hook in hooks:
        hook.remove()
    found = {(use.layer, use.task): use for use in expert_usage(net, [images[:2], images[2:]])}
    assert set(found) == {(layer, task.name) for layer in ("b2", "b4") for task in TASKS}
    for (layer, task), use in found.items():
        gates = routers[f"blocks.{layer}.mixture.routers.{task}"].numpy()
        counts = np.zeros((5, 4), int)
        sums = np.zeros(4)
        for image, tokens in enumerate(gates):
            for token in tokens:
                for expert in np.flatnonzero(token):
                    counts[image, expert] += 1
                    sums[expert] += token[expert]
        assert np.array_equal(use.counts, counts)
        assert (use.tokens, use.top_k) == (TOKENS, 2)
        np.testing.assert_allclose(use.shares, counts.sum(0) / (5 * TOKENS * 2))
        np.testing.assert_allclose(use.gates, sums / np.maximum(counts.sum(0), 1), rtol=1e-5)
        assert sum(use.shares) == pytest.approx(1)


def test_tasks_reach_their_windows(net: MultiTaskNet, images: torch.Tensor) -> None:
    reached = {use.task: use.experts for use in expert_usage(net, [images]) if use.layer == "b4"}
    assert reached == {"semseg": (0, 1, 2, 3), "depth": (2, 3, 4, 5), "kind": (4, 5, 0, 1)}


def test_overflow_is_counted_image_by_image() -> None:
    """Two images that prefer different experts: each overflows, though over both the load is even."""
    use = ExpertUsage("b2", "depth", (0, 1), 1, 10, ((8, 2), (2, 8)), (0.5, 0.5))
    assert use.shares == (0.5, 0.5)
    assert use.dropped_by_target(5) == pytest.approx(6 / 20)
    assert use.most_tokens == 8
    assert use.dropped_by_target(use.most_tokens) == 0
    assert use.dropped_by_target(use.most_tokens - 1) > 0


def test_the_net_is_left_as_it_was(net: MultiTaskNet, images: torch.Tensor) -> None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net.train()
    expert_usage(net, [images])
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.modules())


def test_nets_without_experts_use_none(tmp_path: Path, images: torch.Tensor) -> None:
    dense = largest_net(tmp_path, "".join(line for line in YAML.splitlines(True) if "experts" not in line))
    assert expert_usage(dense, [images]) == ()


@pytest.mark.parametrize(
    ("router", "tasks"),
    [("shared", [None]), ("conditioned", ["semseg", "depth", "kind"])],
    ids=["shared", "conditioned"],
)
def test_other_kinds_of_router(tmp_path: Path, images: torch.Tensor, router: str, tasks: list[str | None]) -> None:
    """One router for all tasks is no task's; a gate of all tasks is told which one it serves."""
    net = largest_net(tmp_path, YAML.replace("top_k: [2]", f"top_k: [2], router: {router}"))
    usage = expert_usage(net, [images])
    assert [use.task for use in usage if use.layer == "b4"] == tasks
    assert all(sum(map(sum, use.counts)) == 5 * TOKENS * 2 for use in usage)


def test_no_image_is_refused(net: MultiTaskNet) -> None:
    with pytest.raises(UserError, match="no image was given"):
        expert_usage(net, [])
