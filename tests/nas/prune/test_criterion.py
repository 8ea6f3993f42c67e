from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from small_world import VIT

from edgemtl.data import collate, open_source
from edgemtl.models import MultiTaskNet, Supernet, recalibrate
from edgemtl.nas.prune.criterion import LossCriterion
from edgemtl.nas.prune.groups import Group, cut_channels, net_groups
from edgemtl.spaces import load_space
from edgemtl.testing.landscape import write_space
from edgemtl.testing.world import TASKS
from edgemtl.train import task_loss


@pytest.fixture(scope="module")
def criterion(home: Path) -> LossCriterion:
    return LossCriterion(open_source(str(home / "photos"), (64, 64)))


@pytest.fixture(scope="module", params=["tiny", "tiny-vit"])
def net(home: Path, criterion: LossCriterion, request: pytest.FixtureRequest) -> MultiTaskNet:
    write_space(home, "tiny-vit", VIT)
    torch.manual_seed(0)
    space = load_space(str(home / "nas" / f"{request.param}.yaml"), TASKS)
    made = Supernet.of(space).extract(space.largest())
    recalibrate(made, criterion.recalibration)
    return made


def scaled(net: MultiTaskNet, group: Group, part: int, channel: int, factor: float) -> MultiTaskNet:
    """The net with all that reads a channel of one part, or the whole head it stands in, multiplied."""
    made = copy.deepcopy(net).double()
    with torch.no_grad():
        for m in group.parts[part]:
            for position, its in zip(m.positions, m.channels, strict=True):
                if its // group.step == channel // group.step and not m.outputs:
                    made.get_submodule(m.module).weight[:, position] *= factor
    return made


def share_of_losses(net: MultiTaskNet, whole: MultiTaskNet, criterion: LossCriterion) -> float:
    """Losses summed, each as a share of the whole net's, over all calibration images at once."""
    batch = collate(criterion.source.split("calibration"), criterion.source.tasks)
    totals = []
    for each in (net, copy.deepcopy(whole).double()):
        outputs = each(torch.from_numpy(batch.image).double())
        totals.append(
            [
                task_loss(
                    t, outputs[t.name], torch.from_numpy(batch.targets[t.name]), torch.from_numpy(batch.masks[t.name])
                )
                for t in net.tasks
            ]
        )
    return sum(float((a / b).detach()) for a, b in zip(*totals, strict=True))


def test_importance_is_the_slope_of_the_losses_by_what_reads_a_channel(
    net: MultiTaskNet, criterion: LossCriterion
) -> None:
    assert len(criterion.source.split("calibration")) <= 4, "one batch, so that the mean of squares is one square"
    orders = criterion.orders(net, net_groups(net))
    for group in net_groups(net)[1::3]:
        for part in range(min(2, len(group.parts))):
            step = 1e-2
            gradients = []
            for channel in range(group.size):
                ends = [
                    share_of_losses(scaled(net, group, part, channel, 1 + s), net, criterion) for s in (step, -step)
                ]
                gradients.append(abs(ends[0] - ends[1]) / (2 * step))
            order = orders[group.name][part]
            assert sorted(order) == list(range(group.size))
            half = len(order) // 2
            assert sum(gradients[c] for c in order[:half]) >= 0.98 * sum(sorted(gradients)[-half:])


def test_only_the_tasks_that_are_asked_for_are_run(net: MultiTaskNet, criterion: LossCriterion) -> None:
    whole = cut_channels(net, [], {})

    def fail(*args: object) -> None:
        raise AssertionError("the other task's head was run")

    whole.blocks["kind_head"].register_forward_hook(fail)
    assert criterion.losses(whole, ["depth"]).losses.keys() == {"depth"}
    with pytest.raises(AssertionError, match="was run"):
        criterion.losses(whole, ["depth", "kind"])


def test_a_loss_over_its_limit_ends_the_trial(net: MultiTaskNet, criterion: LossCriterion) -> None:
    whole = criterion.losses(cut_channels(net, [], {}), ["depth", "kind"])
    assert whole.blocked is None
    assert criterion.losses(cut_channels(net, [], {}), ["depth", "kind"], dict(whole.losses)).blocked is None
    tight = {**whole.losses, "kind": 0.5 * whole.losses["kind"]}
    outcome = criterion.losses(cut_channels(net, [], {}), ["depth", "kind"], tight)
    assert outcome.blocked == "kind"
    assert outcome.losses["kind"] > tight["kind"]


def test_a_net_that_gives_no_numbers_is_as_bad_as_can_be(net: MultiTaskNet, criterion: LossCriterion) -> None:
    broken = cut_channels(net, [], {})
    with torch.no_grad():
        next(broken.blocks["depth_head"].parameters()).fill_(float("nan"))
    outcome = criterion.losses(broken, ["depth"], {"depth": 1e6})
    assert (outcome.blocked, outcome.losses["depth"]) == ("depth", 1e9)
