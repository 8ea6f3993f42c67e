from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from grid_world import GRID, grid_space
from small_world import Ask

from edgemtl.data import open_source
from edgemtl.errors import UserError
from edgemtl.export import ExportRequest, export_run
from edgemtl.models import Supernet, load_supernet
from edgemtl.nas.evaluation.problem import Limit, Problem
from edgemtl.nas.runs import RunFolder, fine_tune
from edgemtl.nas.search import SearchRequest, search
from edgemtl.nas.search.strategies.mask_learning import MASKS, MaskRun
from edgemtl.nas.search.strategies.mask_sampler import MaskSampler
from edgemtl.nas.search.strategies.masks import MaskDistribution, mask_space
from edgemtl.progress import Progress
from edgemtl.results import read_result
from edgemtl.runtime import Engine
from edgemtl.tasks import by_tensor
from edgemtl.testing.landscape import write_space
from edgemtl.train import DivergedError, Recipe, fresh_supernet, train_supernet
from edgemtl.units import Budget


@pytest.fixture(scope="module")
def finished(home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Progress]]:
    """The run of a search, and what it reported."""
    events: list[Progress] = []
    out = tmp_path_factory.mktemp("masks") / "run"
    write_space(home, "small-grid", GRID)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        search(
            SearchRequest(
                out, ("90%FLOPs",), space="small-grid", data="photos", strategy="masks", evaluations=4, batch=2,
                settings={"steps": 8}, finalists=1, threads=1, finetune=0,
            ),
            events.append,
        )  # fmt: skip
    return out, events


@pytest.fixture
def ask_masks(ask: Ask, home: Path) -> Ask:
    write_space(home, "small-grid", GRID)

    def request(out: Path, **changes: object) -> object:
        given = {
            "strategy": "masks",
            "space": "small-grid",
            "supernet": None,
            "settings": {"steps": 8},
            "budgets": ("90%FLOPs",),
        }
        return ask(out, **(given | changes))

    return request  # type: ignore[return-value]


def run_in(folder: Path, steps: int = 30, allowed: float = 0.5) -> MaskRun:
    """A learning run whose tasks may have this share of what masks can add to the smallest design."""
    space = grid_space(folder)
    source, masks = open_source("photos", space.size), mask_space(space)
    torch.manual_seed(0)
    least, most = (design.cost().flops for design in (space.smallest(), space.largest()))
    flops = {"": least + allowed * (most - least)}
    recipe = replace(MASKS, steps=steps, batch=2, sizes=(1.0,), bf16=False)
    return MaskRun(space, masks, source, Supernet.of(space), recipe, flops, folder / "masks")


def test_a_search_learns_masks_and_ends_in_a_run(
    finished: tuple[Path, list[Progress]], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    out, events = finished
    result = read_result(out)
    assert result.feasible
    assert result.best is not None
    assert result.best.flops <= 0.9 * RunFolder(out).space().largest().cost().flops
    news = [event.text for event in events if event.stage == "masks"]
    assert "effective samples" in news[-1]
    content = json.loads((out / "masks" / "masks.json").read_text())
    assert set(content["probabilities"]) == {"depth", "kind"}
    assert all(0 < share <= 1 for share in content["effective_samples"].values())
    net = RunFolder(out).load("best").net
    assert {task.name for task in net.tasks} == {"depth", "kind"}


def test_its_result_trains_and_exports_in_the_ordinary_way(
    finished: tuple[Path, list[Progress]], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    recipe = replace(MASKS, steps=3, batch=2, sizes=(1.0,), largest_steps=1.0)
    fine_tune(finished[0], tmp_path / "tuned", recipe)
    export_run(tmp_path / "tuned", ExportRequest("onnxruntime"))
    with Engine(tmp_path / "tuned" / "bundle") as engine:
        image = np.zeros((1, 3, 64, 64), np.float32)
        assert set(by_tensor(engine.run(image))) == {"depth", "kind"}
        assert set(by_tensor(engine.run(image, ["kind"]))) == {"kind"}


def test_learning_goes_on_where_it_was_interrupted(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the same numbers."""
    monkeypatch.chdir(home)
    whole = run_in(tmp_path / "a", 8).learn()

    def interrupt(progress: Progress) -> None:
        if progress.done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_in(tmp_path / "b", 8).learn(interrupt)
    again = run_in(tmp_path / "b", 8)
    assert again.loop.step == 5
    np.testing.assert_allclose(again.learn().logits, whole.logits, atol=1e-9)


def test_a_resumed_learning_computes_as_it_began(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether BF16 is the faster may be measured otherwise by then."""
    monkeypatch.chdir(home)
    begun = run_in(tmp_path, 2)
    begun.bf16 = True
    begun.learn()
    assert not run_in(tmp_path / "other", 2).bf16
    assert run_in(tmp_path, 2).bf16


def test_weights_that_are_not_finite_end_it_early(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    run, done = run_in(tmp_path, 8), []

    def spoil(progress: Progress) -> None:
        done.append(progress.done)
        if progress.done == 3:
            with torch.no_grad():
                for parameter in run.weights.names:
                    parameter.fill_(math.nan)

    with pytest.raises(DivergedError, match="not finite after 4 steps: search anew in another --out"):
        run.learn(spoil)
    assert done[-1] == 3


def test_paths_shrink_to_what_is_allowed(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses aside: they hardly differ after so few steps."""
    monkeypatch.chdir(home)
    little, much = (run_in(tmp_path / name, 60, allowed).learn() for name, allowed in (("a", 0.2), ("b", 1.0)))
    assert little.logits.mean() < much.logits.mean() - 0.5


def test_the_supernet_is_kept_and_begins_another_search(
    finished: tuple[Path, list[Progress]], ask_masks: Ask, tmp_path: Path
) -> None:
    kept = finished[0] / "masks" / "supernet.safetensors"
    assert search(ask_masks(tmp_path / "again", supernet=kept, settings={"steps": 2}, evaluations=2)).best is not None


def test_a_space_without_masks_is_refused_before_anything_is_written(ask: Ask, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing that a task may keep or skip"):
        search(ask(tmp_path / "run", strategy="masks", supernet=None))
    assert not (tmp_path / "run").exists()


def test_first_designs_agree_to_several_extents_within_the_budget(home: Path, tmp_path: Path) -> None:
    """Here each task believes in another path; all together believe a little more in the first."""
    space = grid_space(tmp_path)
    masks = mask_space(space)
    least, most = (design.cost().flops for design in (space.smallest(), space.largest()))
    limit = least + 0.75 * (most - least)
    limits = (Limit(Budget("flops", limit, f"{limit}FLOPs"), limit),)
    wanted = {"depth": {"s1p0_1": 6.0, "s2p0_1": 6.0}, "kind": {"s1p1_1": 4.0, "s2p1_1": 4.0}}
    distribution = MaskDistribution(
        masks, np.array([[wanted[t].get(position, -4.0) for position in masks.positions] for t in masks.tasks])
    )
    even = {task.name: 1.0 for task in space.tasks}
    problem = Problem(space, limits, (), even, {}, False)
    sampler, study = MaskSampler(problem, 0, 1, distribution), optuna.create_study(directions=["minimize"] * 2)
    turns = len(list(space.uniform(space.largest())))
    designs = [sampler.next_design(study, turns * number) for number in range(5)]
    assert len({design.key for design in designs}) > 1
    assert all(least < design.cost().flops <= limit for design in designs)


def test_a_budget_in_ms_and_one_of_a_task_are_kept(ask_masks: Ask, tmp_path: Path) -> None:
    """The engine is timed, loosely as two timings of so small a net differ; a path's FLOPs are counted."""
    result = search(ask_masks(tmp_path / "run", budgets=("300%ms", "depth:70%FLOPs"), evaluations=6))
    whole = RunFolder(tmp_path / "run").space().largest()
    assert result.best is not None
    assert result.best.paths["depth"].flops <= 0.7 * whole.cost(["depth"]).flops


def test_no_steps_are_refused(ask_masks: Ask, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="0 steps given"):
        search(ask_masks(tmp_path / "run", settings={"steps": 0}))


def test_a_grid_trains_as_other_spaces_do(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandwich's smallest design has no block that could be taught, its random ones have copies."""
    monkeypatch.chdir(home)
    space = grid_space(tmp_path)
    recipe = Recipe(steps=3, batch=2, sizes=(1.0,), largest_steps=0.0, bf16=False)
    path = train_supernet(space, open_source("photos", space.size), recipe, tmp_path / "trained")
    supernet, fresh = Supernet.of(space), fresh_supernet(space, recipe.seed)
    load_supernet(supernet, path, space.fingerprint)
    moved = [
        name for name, tensor in supernet.shared.items() if not torch.equal(tensor, fresh.shared[name].half().float())
    ]
    assert {name.split(".")[1] for name in moved} >= {"stem", "s2p0_1", "f2p1to0", "depth_head", "kind_head"}
    assert all(tensor.isfinite().all() for tensor in supernet.shared.values())
