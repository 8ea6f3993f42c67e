"""A search ends with trained nets: better ones or none, kept and resumable, and refused where nothing can be learnt."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pytest
import torch
from PIL import Image
from refusals import refused
from small_world import Ask

from edgemtl.cli.search import search as command
from edgemtl.data import open_source
from edgemtl.models import MultiTaskNet, Supernet
from edgemtl.nas.evaluation import Candidate, Limit
from edgemtl.nas.runs import TUNING, RunFolder
from edgemtl.nas.search import Preflight, SearchRequest, finetuning, search
from edgemtl.progress import Progress
from edgemtl.results import Result, read_result
from edgemtl.spaces import load_space
from edgemtl.targets import tensorrt_rtx
from edgemtl.testing.world import TASKS
from edgemtl.train import Recipe, label_loss
from edgemtl.units import parse_budget

STEPS = 120
QUICK = replace(TUNING, learning_rate=2e-2, average=0.5, frozen_statistics=True, bf16=False)
"""A rate at which a supernet that has hardly learnt anything learns in so few steps."""


@pytest.fixture(autouse=True)
def quick_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finetuning, "FINETUNING", QUICK)


def answer(out: Path) -> tuple[Result, dict[str, torch.Tensor]]:
    return read_result(out), dict(RunFolder(out).load().net.state_dict())


def test_the_answer_is_trained_further_and_says_so(ask: Ask, tmp_path: Path) -> None:
    """No latency decides which architecture is trained: designs are drawn, one is refined, and it has much to learn."""
    events: list[Progress] = []
    request = ask(tmp_path / "run", finetune=STEPS, finalists=1, strategy="random", seed=1)
    result = search(request, events.append)
    best = result.best
    assert best is not None
    record = best.fine_tuning
    assert record is not None
    assert record.steps == STEPS
    assert record.delta_m_after > record.delta_m_before
    assert result.front[-1].fine_tuning is None, "the baseline is the supernet's"
    config = RunFolder(request.out).config().finetune or {}
    assert (config["steps"], config["processes"]) == (STEPS, 1)
    (preflight,) = [event for event in events if isinstance(event, Preflight)]
    assert preflight.finetune is not None
    assert preflight.finetune.steps == STEPS
    assert preflight.finetune.seconds > 0
    steps = [event for event in events if event.stage == "finetune"]
    assert steps[-1].done == steps[-1].total
    assert any("validation delta_m" in event.text for event in events)
    stored = json.loads((request.out / "result.json").read_text())
    assert stored["best"]["fine_tuning"]["steps"] == STEPS


def test_a_training_that_diverges_leaves_the_weights_as_they_were(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that was searched would be lost with it: a run that is resumed diverges again."""

    def lost(*given: Any) -> torch.Tensor:
        return label_loss(*given) * math.nan

    monkeypatch.setattr("edgemtl.train.sandwich.label_loss", lost)
    events: list[Progress] = []
    result = search(ask(tmp_path / "run", finetune=4, strategy="random"), events.append)
    assert result.best is not None and result.best.fine_tuning is None
    assert any("diverged, what it trained became NaN: its weights stay as they were" in each.text for each in events)


@pytest.mark.parametrize("labelled", [True, False])
def test_an_estimate_times_few_images_and_counts_the_rest(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, labelled: bool
) -> None:
    """On a machine where a forward and a backward pass of any net take half a second an image."""
    timed: list[int] = []

    def pass_seconds(net: MultiTaskNet, recipe: Recipe, images: int) -> float:
        timed.append(images)
        return 0.5 * images

    monkeypatch.setattr(finetuning, "_pass_seconds", pass_seconds)
    monkeypatch.setattr(finetuning, "FINETUNING", replace(QUICK, batch=8, sizes=(1.0,)))
    largest = load_space("tiny", TASKS).largest()
    half = Limit(parse_budget("50%FLOPs"), largest.cost().flops / 2)
    share = 1.0 if labelled else QUICK.label_share
    monkeypatch.setattr(finetuning, "by_labels", lambda recipe, source: replace(recipe, label_share=share))
    evaluator: Any = SimpleNamespace(supernet=Supernet.of(largest.space), source=None)
    found = finetuning.estimate(ask(tmp_path / "run", finetune=6, processes=2), [half], evaluator, largest)
    assert timed == [4, 4]
    share = largest.cost().flops / 2 / largest.space.middle().cost().flops
    teacher = 0 if labelled else 1 / 3  # its forward alone; then a net of half its FLOPs, in the end rounded
    passes = teacher + share * (0.9 + 0.1 * 2)
    assert found.seconds == pytest.approx(6 * 8 * 2 * 0.5 * passes)


def test_the_time_left_counts_the_steps_that_follow_in_another_part() -> None:
    """Ten of forty steps in float took a second each so far; ten through rounding, each as long as three, follow."""
    events: list[Progress] = []
    receive = finetuning._of_whole(events.append, 0, 50, 3 * 10)
    receive(Progress("finetune", 10, 40, seconds_left=30.0))
    receive(Progress("finetune", 40, 40, seconds_left=0.0))
    finetuning._of_whole(events.append, 40, 50)(Progress("finetune", 5, 10, seconds_left=15.0))
    assert [(each.done, each.total, each.seconds_left) for each in events] == [
        (10, 50, 60),
        (40, 50, None),
        (45, 50, 15),
    ]


def test_the_help_says_how_the_steps_are_divided() -> None:
    (option,) = (each for each in command.params if each.name == "finetune")
    assert isinstance(option, click.Option)
    assert "nine tenths in float" in str(option.help) and finetuning.ROUNDED_SHARE == 1 / 10


def test_without_it_nothing_is_trained(ask: Ask, tmp_path: Path) -> None:
    events: list[Progress] = []
    request = ask(tmp_path / "run", finetune=0)
    result = search(request, events.append)
    assert all(entry.fine_tuning is None for entry in result.front)
    assert RunFolder(request.out).config().finetune is None
    assert "finetune" not in {event.stage for event in events}
    assert not (request.out / "finetune").exists()


def stopping(stage: str, done: int, error: type[BaseException]) -> Callable[[Progress], None]:
    def report(news: Progress) -> None:
        if news.stage == stage and news.done >= done:
            raise error

    return report


def again(request: SearchRequest) -> SearchRequest:
    return SearchRequest(**(vars(request) | {"resume": True}))


@pytest.fixture(scope="module", autouse=True)
def without_fp16() -> Iterator[None]:
    """Engines in FP32 alone, so that INT8 blocks are what keeps a budget of bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensorrt_rtx, "_TRAITS", replace(tensorrt_rtx._TRAITS, engine_precisions=("fp32",)))
        yield


@pytest.fixture(scope="module")
def whole(home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, dict[str, torch.Tensor]]:
    """The answer of a search that nothing stopped."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.setattr(finetuning, "FINETUNING", QUICK)
        out = tmp_path_factory.mktemp("runs") / "whole"
        search(request(home, out))
        return answer(out)


def request(home: Path, out: Path) -> SearchRequest:
    """Nothing is timed for its target here, so that two searches give the same answer; it is signed INT8."""
    few = {"space": "tiny", "data": "photos", "evaluations": 2, "batch": 2, "finalists": 1, "finetune": STEPS}
    return SearchRequest(
        out,
        ("60%MB",),
        target="tensorrt-rtx",
        supernet=home / "supernet.safetensors",
        **few,  # type: ignore[arg-type]
    )


@pytest.mark.usefixtures("ask")
def test_a_design_of_int8_blocks_learns_through_their_rounding(
    whole: tuple[Result, dict[str, torch.Tensor]],
) -> None:
    best = whole[0].best
    assert best is not None
    assert best.fine_tuning is not None
    assert "int8" in best.design.values(), "60 % of the bytes are kept by INT8 alone"
    assert best.fine_tuning.delta_m_after > best.fine_tuning.delta_m_before


@pytest.mark.usefixtures("ask")
@pytest.mark.parametrize("done", [1, STEPS - 1], ids=["in float", "through rounding"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_a_search_stopped_while_it_trains_goes_on_to_the_same_answer(
    whole: tuple[Result, dict[str, torch.Tensor]], home: Path, tmp_path: Path, error: type[BaseException], done: int
) -> None:
    """Ctrl-C leaves a result of what there is; whatever else ends it does not; both go on."""
    stopped = request(home, tmp_path / "run")
    with pytest.raises(error):
        search(stopped, stopping("finetune", done, error))
    assert (stopped.out / "result.json").is_file() == (error is KeyboardInterrupt)
    events: list[Progress] = []
    result = search(again(stopped), events.append)
    assert "finalists" not in {event.stage for event in events}, "they were measured before"
    assert result.best == whole[0].best
    weights = answer(stopped.out)[1]
    assert all(torch.equal(value, weights[name]) for name, value in whole[1].items())
    assert search(again(stopped)) == read_result(stopped.out)


@pytest.mark.usefixtures("ask")
def test_a_design_that_an_earlier_result_holds_is_trained_from_its_own_beginning(
    whole: tuple[Result, dict[str, torch.Tensor]], home: Path, tmp_path: Path
) -> None:
    """A search that Ctrl-C stopped has written designs of its front, not trained in float, under their keys."""
    stopped = request(home, tmp_path / "run")
    with pytest.raises(RuntimeError):
        search(stopped, stopping("finetune", 1, RuntimeError))
    run, best = RunFolder(stopped.out), whole[0].best
    assert best is not None
    (begun,) = (name for name in run.names() if name != "baseline")
    design = run.space().design(best.design)
    run.save(design.key, Candidate(design, run.load(begun).net, None))
    assert search(again(stopped)).best == best


def test_a_training_that_does_not_help_changes_nothing(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finetuning, "FINETUNING", replace(QUICK, learning_rate=0.9, average=0.0))
    events: list[Progress] = []
    result = search(ask(tmp_path / "run", finetune=2, evaluations=2), events.append)
    assert result.best is not None
    assert result.best.fine_tuning is None
    assert any("did not help on validation images: its weights stay" in event.text for event in events)


def test_a_task_without_training_labels_is_refused(ask: Ask, tmp_path: Path, home: Path) -> None:
    folder = Path(shutil.copytree(home / "photos", tmp_path / "photos"))
    for picture in (folder / "depth" / "train").iterdir():  # 0 is no depth
        Image.fromarray(np.zeros((64, 64), np.uint16)).save(picture)
    wanted = ask(tmp_path / "run", data=str(folder), finetune=STEPS)
    line = refused(lambda: search(wanted))
    assert "no training image has a valid label of task 'depth'" in line
    assert "give --finetune 0" in line
    assert not wanted.out.exists()


def test_the_largest_net_teaches_where_an_image_lacks_a_label(ask: Ask, tmp_path: Path, home: Path) -> None:
    """Elsewhere labels say it all, and its pass is saved."""
    folder = Path(shutil.copytree(home / "photos", tmp_path / "photos"))
    shares = []
    for _ in range(2):
        wanted = ask(tmp_path / "run", data=str(folder), finetune=STEPS)
        config = finetuning.finetune_config(wanted, open_source(str(folder), (64, 64)))
        shares.append(config and config["label_share"])
        picture = min((folder / "depth" / "train").iterdir())
        Image.fromarray(np.zeros((64, 64), np.uint16)).save(picture)
    assert shares == [1.0, 0.5]


def test_measured_finalists_are_read_again_for_their_own_search_only(
    whole: tuple[Result, dict[str, torch.Tensor]], ask: Ask, home: Path, tmp_path: Path
) -> None:
    stopped = request(home, tmp_path / "run")
    with pytest.raises(RuntimeError):
        search(stopped, stopping("finetune", 1, RuntimeError))
    more: list[Progress] = []
    with pytest.raises(RuntimeError):
        search(SearchRequest(**(vars(again(stopped)) | {"evaluations": 3})), _both(more.append, "finetune"))
    assert "finalists" in {event.stage for event in more}, "a third design may be one of them"
    file = stopped.out / "finalists.json"
    file.write_text(file.read_text().replace('"ratio": 1', '"ratio": 2'))
    assert "was changed after edgemtl wrote it" in refused(lambda: search(SearchRequest(
        **(vars(again(stopped)) | {"evaluations": 3})
    )))  # fmt: skip


def _both(collect: Callable[[Progress], None], stage: str) -> Callable[[Progress], None]:
    def report(news: Progress) -> None:
        collect(news)
        if news.stage == stage:
            raise RuntimeError

    return report
