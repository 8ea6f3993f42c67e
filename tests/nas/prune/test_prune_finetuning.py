"""A pruned module learns from itself or by its owner's train step; what such a step may return wrongly."""

from __future__ import annotations

import re
import sys
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgemtl.errors import UserError
from edgemtl.files.images import resize_picture
from edgemtl.models import ModuleNet
from edgemtl.models.quantization import QuantScheme
from edgemtl.nas.prune import FineTuning
from edgemtl.nas.prune.agreement import AgreementCriterion
from edgemtl.nas.prune.cut import Group, Member
from edgemtl.nas.prune.finetuning import fine_tune
from edgemtl.own import SelfLabelled, blend
from edgemtl.progress import Progress, silent
from edgemtl.tasks import Output, make_task

SIZE = (8, 12)
STEPS = """
def nan(module, images, step): return module(images)["map"].mean() * (float("nan") if step == 1 else 1.0)
def none(module, images, step): return None
def many(module, images, step): return module(images)["map"]
def fixed(module, images, step): return module(images)["map"].detach().mean()
def fails(module, images, step): raise ValueError("labels of 3 classes\\nfor a head of 2")
"""


class Toy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 1, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"map": self.second(self.first(image).relu())}


def net_of(module: nn.Module) -> ModuleNet:
    task = make_task("map", "raw", 1, (), [Output("map", 1, dense=True, sizes=(1, *SIZE))])
    return ModuleNet(module, [task], SIZE).eval()


@pytest.fixture
def net() -> ModuleNet:
    torch.manual_seed(0)
    return net_of(Toy())


@pytest.fixture
def source(net: ModuleNet) -> SelfLabelled:
    pictures = [np.random.default_rng(number).integers(0, 256, (*SIZE, 3), np.uint8) for number in range(8)]

    def labels(image: Any) -> Any:
        with torch.no_grad():
            return {"map": {"map": net(torch.from_numpy(image))["map"]["map"].numpy()}}

    splits = {name: pictures[number::4] for number, name in enumerate(("train", "calibration", "validation", "test"))}
    return SelfLabelled("pictures", splits, "content", SIZE, net.tasks, labels, "whole")  # type: ignore[arg-type]


def narrow_of(net: ModuleNet) -> ModuleNet:
    made = net.copy()
    with torch.no_grad():
        made.get_parameter("module.first.weight").mul_(0.8)
    return made


@pytest.mark.parametrize("scheme", [None, QuantScheme()], ids=["in float", "through eight bits"])
def test_a_narrow_net_learns_what_the_whole_one_gives(
    net: ModuleNet, source: SelfLabelled, tmp_path: Path, scheme: QuantScheme | None
) -> None:
    losses: list[float] = []

    def report(progress: Progress) -> None:
        losses.append(float(progress.text.removeprefix("loss ")))

    narrow, before = narrow_of(net), deepcopy(net.state_dict())
    fine_tune(narrow, net, source, FineTuning(40, batch=2, learning_rate=5e-3), tmp_path, report, scheme)
    assert losses[-1] < 0.5 * losses[0] and len(losses) == 40
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items()), "the teacher stays"


def test_a_training_that_does_harm_leaves_the_weights_as_they_were(
    net: ModuleNet, source: SelfLabelled, tmp_path: Path
) -> None:
    narrow = narrow_of(net)
    before = deepcopy(narrow.state_dict())
    fine_tune(narrow, net, source, FineTuning(5, batch=2, learning_rate=0.9), tmp_path, silent)
    assert all(torch.equal(value, before[name]) for name, value in narrow.state_dict().items())


def test_a_stopped_fine_tuning_goes_on_as_if_it_had_not_been(
    net: ModuleNet, source: SelfLabelled, tmp_path: Path
) -> None:
    def stop(progress: Progress) -> None:
        if progress.done == 3:
            raise KeyboardInterrupt

    tuning, ends = FineTuning(6, batch=2), []
    for name, first in (("whole", silent), ("stopped", stop)):
        narrow = narrow_of(net)
        if first is stop:
            with pytest.raises(KeyboardInterrupt):
                fine_tune(narrow, net, source, tuning, tmp_path / name, stop)
            narrow = narrow_of(net)
        fine_tune(narrow, net, source, tuning, tmp_path / name, silent)
        ends.append(narrow.state_dict())
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


@pytest.mark.parametrize("scheme", [None, QuantScheme()], ids=["in float", "through eight bits"])
def test_statistics_come_back_with_the_weights(
    source: SelfLabelled, tmp_path: Path, scheme: QuantScheme | None
) -> None:
    """A search that goes on after its training takes the net from the checkpoint; what is rounded keeps them."""
    torch.manual_seed(0)
    toy = Toy()
    net = net_of(nn.Sequential(nn.BatchNorm2d(3), toy))
    trained = []
    for _ in range(2):
        narrow = net.copy()
        narrow.get_buffer("module.0.running_mean").fill_(1.0)
        fine_tune(narrow, net, source, FineTuning(4, batch=2), tmp_path, silent, scheme)
        trained.append(narrow.state_dict())
    assert all(torch.equal(value, trained[1][name]) for name, value in trained[0].items())
    assert torch.equal(trained[0]["module.0.running_mean"], torch.ones(3)) == (scheme is not None)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("nan", "steps:nan returns nan at step 1: a finite loss is wanted"),
        ("none", "steps:none returns NoneType at step 0"),
        ("many", "steps:many returns (2, 1, 8, 12) at step 0"),
        ("fixed", "steps:fixed returns () at step 0: the loss is wanted"),
        ("fails", "steps:fails fails at step 0 (ValueError: labels of 3 classes"),
    ],
)
def test_a_train_step_that_gives_no_loss_is_told_in_a_line(
    net: ModuleNet, source: SelfLabelled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "steps", raising=False)
    Path("steps.py").write_text(STEPS)
    with pytest.raises(UserError, match=re.escape(words)) as refusal:
        fine_tune(narrow_of(net), net, source, FineTuning(3, f"steps:{step}", batch=2), tmp_path / "training", silent)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("tuning", "words"),
    [
        (lambda: FineTuning(-1), "--finetune -1: a number of steps"),
        (lambda: FineTuning(0, "steps:nan"), "say how many with --finetune STEPS"),
        (lambda: FineTuning(3).check("design"), "train a pruned run with edgemtl train --run"),
        (lambda: FineTuning(3, "no_such_module:step").check("net"), "no Python module 'no_such_module'"),
    ],
)
def test_a_fine_tuning_that_nothing_would_do_is_refused(tuning: Any, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        tuning()


def test_a_channel_that_no_output_hears_comes_last_and_distance_is_the_loss(
    net: ModuleNet, source: SelfLabelled
) -> None:
    with torch.no_grad():
        net.get_parameter("module.second.weight")[0, 3] = 0
    criterion = AgreementCriterion(source, net)
    channels = tuple(range(8))
    members = (Member("module.first", True, channels, channels), Member("module.second", False, channels, channels))
    group = Group("first", 8, ("map",), (members,), ("first",))
    assert criterion.orders(net, [group])["first"][0][-1] == 3
    assert criterion.losses(net.copy(), ["map"]).losses["map"] == pytest.approx(1, abs=1e-5)
    halved = net.copy()
    with torch.no_grad():
        for name in ("weight", "bias"):
            halved.get_parameter(f"module.second.{name}").mul_(0.5)
    rise = criterion.losses(halved, ["map"]).losses["map"]
    assert rise == pytest.approx(1.5, abs=0.05), "half of every value is missing"
    assert criterion.losses(halved, ["map"], {"map": 1.2}).blocked == "map"


def test_windows_are_training_pictures_alone_and_follow_from_the_generator(source: SelfLabelled) -> None:
    first, again = (source.windows(5, np.random.default_rng(4)) for _ in range(2))
    assert first.shape == (5, 3, *SIZE) and np.array_equal(first, again)
    assert not np.array_equal(first, source.windows(5, np.random.default_rng(5)))


def test_windows_of_a_large_picture_are_those_of_a_smaller_one(net: ModuleNet) -> None:
    """Twice as large as the net reads is enough for windows of half a side."""
    large = np.random.default_rng(0).integers(0, 256, (90, 70, 3), np.uint8)
    windows = []
    for picture in (large, resize_picture(large, (2 * SIZE[0], 2 * SIZE[1]))):
        splits: Any = {name: [picture] for name in ("train", "calibration", "validation", "test")}
        pictures = SelfLabelled("pictures", splits, "content", SIZE, net.tasks, lambda image: {}, "whole")
        windows.append(pictures.windows(4, np.random.default_rng(1)))
    assert np.array_equal(*windows)


def test_blended_images_lie_between_two_and_are_recoloured_a_little() -> None:
    images = np.stack([np.full((3, 4, 4), value, np.float32) for value in (-1.0, 1.0) for _ in range(100)])
    made, again = (blend(images, np.random.default_rng(3)) for _ in range(2))
    assert made.dtype == np.float32 and made.shape == images.shape and np.array_equal(made, again)
    assert not np.ptp(made.reshape(200, 3, -1), axis=2).any(), "no pixel is treated unlike others"
    means = made.mean((1, 2, 3))
    assert 15 < (np.abs(means) < 0.5).sum() < 45, (
        "three fifths are mixed, half of them with the other kind, half of those well"
    )
    assert np.abs(means).max() < 1.15 + 4 * 0.15


@pytest.mark.parametrize(("size", "batch"), [((8, 12), 32), ((48, 48), 28), ((224, 320), 8)])
def test_a_batch_has_more_of_small_images(size: tuple[int, int], batch: int) -> None:
    assert FineTuning(1).for_size(size).batch == batch and FineTuning(1, batch=3).for_size(size).batch == 3
