from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from toys import TRAINED, Toys, toy_space

from edgemtl.errors import UserError
from edgemtl.files.json import parse_json
from edgemtl.models import Supernet, load_supernet, read_header, recalibrate
from edgemtl.models.quantization import QuantScheme
from edgemtl.nas.runs import OneDesign
from edgemtl.progress import Progress
from edgemtl.spaces import Design, Space, Values
from edgemtl.train import (
    DivergedError,
    InitialWeights,
    Recipe,
    TrainingProgress,
    batches_of,
    evaluate,
    fresh_supernet,
    loop,
    train_supernet,
)
from edgemtl.train.feed import training_batches
from edgemtl.train.losses import label_loss
from edgemtl.train.sandwich import SupernetTraining, decay_groups
from edgemtl.train.trainer import _forget_after, _take_average

RECIPE = Recipe(steps=6, batch=2, sizes=(1.0,), largest_steps=0.5, seed=3, bf16=False)


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Space:
    return toy_space(tmp_path_factory.mktemp("space"))


class Watched:
    """A space that counts steps by its largest design, and may stop the run at one of them."""

    def __init__(self, space: Space, stop: Callable[[int], None] = lambda step: None) -> None:
        self.space, self.stop, self.step = space, stop, -1  # a training looks at its ends before it begins
        self.name, self.tasks, self.fingerprint = space.name, space.tasks, space.fingerprint
        self.architecture, self.plan, self.stages = space.architecture, space.plan, space.stages
        self.drawn: list[Design] = []

    def largest(self) -> Values:
        if self.step >= 0:
            self.stop(self.step)
        self.step += 1
        return self.space.largest()

    def smallest(self) -> Values:
        return self.space.smallest()

    def random(self, rng: random.Random) -> Values:
        self.drawn.append(self.space.random(rng))
        return self.drawn[-1]


class Killed(BaseException):
    """What ends a process without a chance to write anything."""


def stopping(step: int, error: type[BaseException]) -> Callable[[int], None]:
    def stop(now: int) -> None:
        if now == step:
            raise error

    return stop


def train(space: Space, recipe: Recipe, out: Path, stop: Callable[[int], None] = lambda step: None) -> bytes:
    return train_supernet(Watched(space, stop), Toys(), recipe, out, command="edgemtl train").read_bytes()


@pytest.mark.parametrize("weighting", ["equal", "uncertainty", "pcgrad"])
def test_an_interrupted_run_ends_with_the_weights_of_an_uninterrupted_one(
    space: Space, tmp_path: Path, weighting: str
) -> None:
    if weighting == "pcgrad":
        pytest.importorskip("torchjd")
    recipe = replace(RECIPE, weighting=weighting)
    whole = train(space, recipe, tmp_path / "whole")
    for step in (2, 4):  # before and within the sandwich
        with pytest.raises(KeyboardInterrupt):
            train(space, recipe, tmp_path / str(step), stopping(step, KeyboardInterrupt))
        assert not (tmp_path / str(step) / "supernet.safetensors").exists()
        assert train(space, recipe, tmp_path / str(step)) == whole


def test_a_run_that_is_resumed_computes_in_what_it_began_with(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a busy machine BF16 is the faster one in one measurement, and FP32 in the next."""
    recipe = replace(RECIPE, bf16=None)
    monkeypatch.setattr(Recipe, "computes_bf16", lambda self: True)
    whole = train(space, recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(space, recipe, tmp_path / "part", stopping(2, KeyboardInterrupt))
    monkeypatch.setattr(Recipe, "computes_bf16", lambda self: False)
    assert train(space, recipe, tmp_path / "part") == whole
    assert json.loads((tmp_path / "part" / "training.json").read_text())["computed_in"] == "BF16"
    assert train(space, recipe, tmp_path / "other") != whole


def test_a_killed_run_goes_on_from_its_last_checkpoint(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(space, RECIPE, tmp_path / "whole")
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", -1.0)
    with pytest.raises(Killed):
        train(space, RECIPE, tmp_path / "killed", stopping(4, Killed))
    rest = Watched(space)
    assert train_supernet(rest, Toys(), RECIPE, tmp_path / "killed", command="edgemtl train").read_bytes() == whole
    assert rest.step == 2 + 1  # two steps, and the scoring of the largest design


def test_the_sandwich_is_largest_smallest_and_random_designs_drawn_from_the_seed(space: Space, tmp_path: Path) -> None:
    first, second = Watched(space), Watched(space)
    for number, watched in enumerate((first, second)):
        train_supernet(watched, Toys(), replace(RECIPE, random_designs=2), tmp_path / str(number))
    assert first.drawn == second.drawn
    assert len(first.drawn) == 2 * 3  # in the second half of six steps
    assert len(set(first.drawn)) > 1


def test_one_step_in_so_many_trains_the_ends_and_in_the_others_the_largest_only_teaches(space: Space) -> None:
    """Narrow designs learn in both; weights that only the largest one reads have gradients in the first alone."""
    recipe = Recipe(steps=4, batch=2, sizes=(1.0,), largest_steps=0.0, random_designs=1, ends_every=2, bf16=False)
    narrow = Watched(space)
    narrow.random = lambda rng: space.smallest()  # type: ignore[method-assign]
    training = SupernetTraining(narrow, recipe, fresh_supernet(space, 0), None, Accelerator(cpu=True))
    learnt: list[set[str]] = []
    for step, batch in zip(range(2), training_batches(Toys().split("train"), space.tasks, recipe, 0, 0), strict=False):
        before = {name: each.detach().clone() for name, each in training.supernet.shared.items()}
        training.one_step(step, batch)
        learnt.append({name for name, each in training.supernet.shared.items() if not torch.equal(each, before[name])})
        assert {name.split(".")[0] for name in training.mean_losses()} == [{"largest", "narrow"}, {"narrow"}][step]
    assert learnt[1] < learnt[0]


def test_with_a_teacher_narrow_designs_learn_from_it_where_the_largest_is_not_trained(space: Space) -> None:
    recipe = Recipe(steps=4, batch=2, sizes=(1.0,), largest_steps=0.0, ends_every=2, bf16=False)
    teacher = fresh_supernet(space, 1).extract(space.largest())
    training = SupernetTraining(space, recipe, fresh_supernet(space, 0), teacher, Accelerator(cpu=True))
    calls: list[int] = []
    training._teach = lambda image, teach=training._teach: (calls.append(1), teach(image))[1]  # type: ignore
    training._largest = lambda image: pytest.fail("the largest design taught")  # type: ignore[method-assign]
    batches = training_batches(Toys().split("train"), space.tasks, recipe, 0, 0)
    for step, batch in zip(range(2), batches, strict=False):
        training.one_step(step, batch)
    assert len(calls) == 2


def test_what_is_written_is_what_was_scored(space: Space, tmp_path: Path) -> None:
    path = train_supernet(space, Toys(), RECIPE, tmp_path, command="edgemtl train --seed 3")
    header = read_header(path)
    assert header["recipe"] == RECIPE.as_json()
    assert (header["space"], header["fingerprint"], header["command"]) == (
        "toy",
        space.fingerprint,
        "edgemtl train --seed 3",
    )
    assert header["data"] == {"name": "toys", "fingerprint": "toys/1"}
    written = json.loads((tmp_path / "training.json").read_text())
    assert written["environment"]
    supernet = Supernet.of(space)
    load_supernet(supernet, path, space.fingerprint)
    for name, design in (("largest", space.largest()), ("smallest", space.smallest())):
        net = supernet.extract(design)
        recalibrate(net, [torch.from_numpy(batch.image) for batch in batches_of(Toys().split("train"), 16)])
        scores = evaluate(net, TRAINED, batches_of(Toys().split("validation"), 16, tasks=TRAINED))
        for task, metrics in scores.items():
            assert written["validation"][name][task] == pytest.approx(metrics, rel=1e-5)


def test_a_net_with_statistics_is_taught_and_scored_with_them(space: Space, tmp_path: Path) -> None:
    """Those of whole training images, measured once: neither the training nor its scores measure others."""
    net = fresh_supernet(space, 0).extract(space.largest())
    recalibrate(net, [torch.from_numpy(batch.image) for batch in batches_of(Toys().split("train"), 8)])
    teacher = net.copy()
    one = OneDesign(space.largest(), net, "")
    weights = one.weights(QuantScheme(), frozen=True)
    training = SupernetTraining(one, replace(RECIPE, largest_steps=1.0), weights, teacher, Accelerator())
    assert training.teacher is not None
    assert not training.teacher.training
    path = train_supernet(
        one, Toys(), replace(RECIPE, largest_steps=1.0), tmp_path, initial=InitialWeights(weights), teacher=teacher
    )
    load_supernet(weights, path, one.fingerprint)
    trained = weights.extract({})
    statistics = dict(teacher.named_buffers())
    assert all(torch.equal(value, statistics[name]) for name, value in trained.named_buffers())
    scores = evaluate(trained, TRAINED, batches_of(Toys().split("validation"), 16, tasks=TRAINED))
    assert json.loads((tmp_path / "training.json").read_text())["validation"] == {"largest": scores}


def test_it_learns_and_reports_what_it_does(space: Space, tmp_path: Path) -> None:
    reports: list[TrainingProgress] = []
    recipe = Recipe(steps=60, batch=4, sizes=(1.0,), learning_rate=0.01, average=0.9, zoom=(1.0, 1.0), bf16=False)
    train_supernet(space, Toys(), recipe, tmp_path, report=lambda news: reports.append(cast("TrainingProgress", news)))
    assert [progress.done for progress in reports] == [20, 40, 60]
    assert set(reports[-1].losses) == {"largest.semseg", "largest.depth", "narrow.semseg", "narrow.depth"}
    assert reports[-1].losses["largest.semseg"] < 0.75 * reports[0].losses["largest.semseg"]
    lines = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [line["losses"] for line in lines] == [progress.losses for progress in reports]
    scores = json.loads((tmp_path / "training.json").read_text())["validation"]
    assert scores["largest"]["semseg"]["miou"] > 0.35  # chance: 0.14
    assert scores["smallest"]["semseg"]["miou"] > 0.25


def test_precision_may_change_from_run_to_run_of_one_process(space: Space, tmp_path: Path) -> None:
    recipe = replace(RECIPE, steps=2)
    found = {bf16: train(space, replace(recipe, bf16=bf16), tmp_path / str(bf16)) for bf16 in (False, True)}
    tensors = {bf16: content[-20_000:] for bf16, content in found.items()}
    assert tensors[False] != tensors[True]
    assert train(space, recipe, tmp_path / "again") == found[False]


def test_public_weights_are_where_training_begins(space: Space, tmp_path: Path) -> None:
    supernet = fresh_supernet(space, 8)
    before = {name: parameter.detach().clone() for name, parameter in supernet.shared.items()}
    recipe = replace(RECIPE, steps=1, learning_rate=1e-6)
    path = train_supernet(space, Toys(), recipe, tmp_path, initial=InitialWeights(supernet, "b" * 64))
    assert all(torch.allclose(before[name], value, atol=1e-3) for name, value in supernet.shared.items())
    record = json.loads((tmp_path / "training.json").read_text())
    assert read_header(path)["begun_with_sha256"] == record["begun_with_sha256"] == "b" * 64
    assert read_header(path)["weights_sha256"] != "b" * 64, "that is of the weights in the file"


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_refused(space: Space, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(space, RECIPE, tmp_path, stopping(1, KeyboardInterrupt))
    with pytest.raises(UserError, match=r"another recipe: sizes 1.0 \(here 0.5,1.0\), seed 3 \(here 4\); resume"):
        train(space, replace(RECIPE, seed=4, sizes=(0.5, 1.0)), tmp_path)
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"cannot be read: .* delete it to begin anew"):
        train(space, RECIPE, tmp_path)


def test_the_rate_rises_for_three_percent_and_falls_to_one() -> None:
    recipe = Recipe(steps=1000, learning_rate=0.1)
    rates = [recipe.rate_at(step) for step in range(1000)]
    assert rates[:30] == pytest.approx([0.1 * (step + 1) / 30 for step in range(30)])
    assert rates[30] == pytest.approx(0.1)
    assert rates[515] == pytest.approx(0.1 * (0.01 + 0.99 / 2))
    assert all(before >= after for before, after in pairwise(rates[30:]))
    assert rates[-1] == pytest.approx(0.001, rel=0.01)


def test_decay_spares_biases_normalisation_and_depthwise_filters(space: Space) -> None:
    table = Supernet.of(space).shared
    decayed, plain = decay_groups({parameter: name for name, parameter in table.items()}, RECIPE)
    names = {id(parameter): name for name, parameter in table.items()}
    spared = {names[id(parameter)] for parameter in plain["params"]}
    assert {names[id(p)] for p in decayed["params"]} | spared == set(table)
    assert spared == {n for n in table if "norm" in n or n.endswith("bias") or ".depthwise." in n}
    assert (decayed["weight_decay"], plain["weight_decay"]) == (RECIPE.weight_decay, 0.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": 0}, "a step or more"),
        ({"batch": 1}, "a batch of 2 or more"),
        ({"sizes": (0.5, 3.0)}, "--sizes 0.5,3: fractions"),
        ({"sizes": ()}, "--sizes : fractions"),
        ({"zoom": (1.4, 0.9)}, "--zoom 1.4,0.9: two scales"),
        ({"zoom": (1.0,)}, "--zoom 1: two scales"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0"),
        ({"learning_rate": math.nan}, "--learning-rate nan"),
    ],
)
def test_a_recipe_that_trains_nothing_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(RECIPE, **changes)


def test_validation_is_scored_on_the_way_and_changes_nothing(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(RECIPE, steps=60)
    plain = train(space, recipe, tmp_path / "plain")
    monkeypatch.setattr("edgemtl.train.interim.INTERIM_SECONDS", 0.0)
    monkeypatch.setattr("edgemtl.train.interim.INTERIM_SHARE", 1e9)
    events: list[TrainingProgress] = []
    notes: list[str] = []

    def hear(news: Progress) -> None:
        if isinstance(news, TrainingProgress):
            events.append(news)
        else:
            notes.append(news.text)

    path = train_supernet(space, Toys(), recipe, tmp_path / "scored", command="edgemtl train", report=hear)
    assert path.read_bytes() == plain
    assert [bool(news.validation) for news in events] == [True, True, False]  # the last ones are those of the end
    assert set(events[0].validation) == {task.name for task in space.tasks}
    lines = [json.loads(line) for line in (tmp_path / "scored" / "train.jsonl").read_text().splitlines()]
    assert [line["validation"] for line in lines] == [news.validation for news in events]
    assert [note.split(",")[0] for note in notes] == ["validation after 20 steps", "validation after 40 steps"]
    assert [bool(news.seconds_left) for news in events] == [True, True, False]


def test_a_training_that_diverged_ends_at_its_next_report_which_its_log_keeps(
    space: Space, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hours of further steps could mend nothing. The losses that are no numbers stand in the log as null."""

    def lost(*given: Any) -> Tensor:
        return label_loss(*given) * math.nan

    monkeypatch.setattr("edgemtl.train.sandwich.label_loss", lost)
    monkeypatch.setattr("edgemtl.train.interim.INTERIM_SECONDS", math.inf)  # scores look at the largest design too
    watched = Watched(space)
    with pytest.raises(DivergedError, match="diverged, its weights are not finite after 20 steps: begin again"):
        train_supernet(watched, Toys(), replace(RECIPE, steps=45), tmp_path)
    assert watched.step == 20
    log = tmp_path / "train.jsonl"
    written = log.read_bytes()
    (line,) = [parse_json(line) for line in written.splitlines()]
    assert line["step"] == 20 and set(line["losses"].values()) == {None}
    _forget_after(log, 20)
    assert log.read_bytes() == written
    assert not (tmp_path / "supernet.safetensors").exists()


def test_weights_that_are_too_large_to_be_stored_have_diverged(space: Space) -> None:
    supernet = fresh_supernet(space, 0)
    average = {name: torch.full_like(weight, 1e5) for name, weight in supernet.shared.items()}
    training: Any = SimpleNamespace(supernet=supernet, average=average, recipe=RECIPE)
    with pytest.raises(DivergedError, match="after 6 steps"):
        _take_average(training)


def test_the_steps_before_tell_how_long_the_rest_takes() -> None:
    recipe = Recipe(steps=100, sizes=(0.5, 1.0), largest_steps=0.5, random_designs=1)
    works = [recipe.work_at(step) for step in range(100)]
    assert works[0] == 0.25  # a quarter of the pixels, the largest design alone
    assert works[99] == 2.0  # the full size, and two narrow designs of half its work each
    assert sorted(works) == works
    seldom = replace(recipe, ends_every=2)
    assert [seldom.work_at(step) for step in (0, 1, 98)] == [0.25, 0.25, 2.0]  # before the sandwich, nothing changes
    assert seldom.work_at(99) == pytest.approx(1 / 3 + 1)  # the largest design has no backward pass


@pytest.mark.parametrize("every", [0, 101])
def test_ends_that_are_never_trained_are_refused(every: int) -> None:
    with pytest.raises(UserError, match=f"--ends-every {every}: 1 to 100 steps are wanted"):
        Recipe(ends_every=every)
