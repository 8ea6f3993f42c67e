"""Floors from the command line to the report: kept, missed by all, stopped early, refused before a search."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from chain import Here
from page_reader import Page

from edgemtl.data import open_source
from edgemtl.models import Supernet, save_supernet
from edgemtl.spaces import load_space
from edgemtl.testing.landscape import write_space
from edgemtl.testing.world import TASKS, write_data
from edgemtl.units import format_quantity

VALIDATION = 40
SEARCH = (
    "search", "--space", "tiny", "--data", "photos", "--supernet", "supernet.safetensors", "--strategy", "random",
    "--device", "raspberry-pi-5", "--finetune", "0",
)  # fmt: skip


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A space, pictures, and weights with which a narrow decoder of depth is a good deal worse than a wide one.

    The logarithm of a depth is a sum over the decoder's channels, which are positive: half of them give half of it.
    """
    folder = tmp_path_factory.mktemp("workplace")
    write_space(folder)
    source = open_source(str(write_data(folder / "photos", {"train": 6, "val": VALIDATION, "test": 3})), (64, 64))
    space = load_space(str(folder / "nas" / "tiny.yaml"), source.tasks)
    torch.manual_seed(0)
    supernet = Supernet.of(space)
    with torch.no_grad():
        for name, values in supernet.shared.items():
            if name.startswith("blocks.depth_head"):
                values.fill_(0.1 if name.endswith("weight") else 0.0)
    header = {"space": space.name, "fingerprint": space.fingerprint, "tasks": [task.name for task in space.tasks]}
    save_supernet(supernet, folder / "supernet.safetensors", header)
    return folder


def result_of(run: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path(run, "result.json").read_text())
    return content


def test_what_cannot_keep_a_floor_is_stopped_early_with_a_bound(here: Here) -> None:
    status, shown, error = here(*SEARCH, "--floor", "depth=5%", "--evaluations", "6", "--out", "runs/early")
    assert status == 0, error
    result = result_of("runs/early")
    stops = result["early_stops"]
    assert result["feasible"] and stops["floors"] == ["depth=5%"]
    assert 0 < stops["designs"] < 6 and stops["images"] == 6 * VALIDATION
    assert 8 * stops["designs"] <= stops["images_saved"] < VALIDATION * stops["designs"]
    assert stops["wrong_chance"] == pytest.approx(6 * 2e-4)
    line = f"{stops['designs']} of 6 designs were stopped early by floors that they could not keep (depth=5%)"
    bound = "at most 0.12 % chance that any of them was stopped wrongly"
    assert line in shown and bound in shown
    assert here("report", "runs/early")[0] == 0
    page = Page(Path("runs/early/report.html").read_text()).text
    assert line in page and bound in page
    assert here(*SEARCH, "--floor", "depth=5%", "--evaluations", "3", "--out", "runs/again")[0] == 0
    assert here(*SEARCH, "--floor", "depth=5%", "--evaluations", "6", "--out", "runs/again", "--resume")[0] == 0
    again = result_of("runs/again")
    assert again["early_stops"] == stops and again["best"]["design"] == result["best"]["design"]


def test_a_value_that_all_miss_ends_with_the_nearest_design_and_by_how_much(here: Here) -> None:
    smallest = load_space("tiny", TASKS).smallest().cost().flops
    limits = ("--budget", f"{smallest}FLOPs", "--floor", "depth<1.534", "--floor", "depth.abs_rel=50%")
    status, shown, error = here(*SEARCH, *limits, "--evaluations", "3", "--out", "runs/missed")
    assert status == 0, error
    assert "floor depth.rmse<1.534" in shown and "1.534 m" in shown, "the table before the search"
    result = result_of("runs/missed")
    assert not result["feasible"] and result["floors"] == ["depth.rmse<1.534", "depth.abs_rel=50%"]
    _, rmse, abs_rel = result["best"]["limits"]
    assert (rmse["quantity"], rmse["metric"], rmse["unit"], rmse["at_least"]) == ("score", "rmse", "m", False)
    assert not rmse["kept"] and rmse["allowed"] == 1.534 < rmse["value"]
    assert rmse["excess"] == pytest.approx((rmse["value"] - 1.534) / 1.5332, rel=0.02)
    assert (abs_rel["quantity"], abs_rel["metric"], abs_rel["kept"]) == ("drop", "abs_rel", True)
    missed = f"at most 1.534 m is allowed, missed by {format_quantity('score', rmse['value'] - 1.534)} m"
    assert "no evaluated design keeps every limit, 'best' is the nearest (floor depth.rmse<1.534: depth has" in shown
    assert missed in shown
    assert here("report", "runs/missed")[0] == 0
    page = Page(Path("runs/missed/report.html").read_text()).text
    assert "breaks floor depth.rmse<1.534" in page and "at most 1.534 m" in page and missed in page
    status, shown, error = here("compare", "runs/missed", "runs/missed")
    assert status == 0 and "the first breaks floor depth.rmse<1.534: depth has rmse" in shown


def test_a_value_that_the_largest_design_misses_is_refused_before_the_search(here: Here) -> None:
    status, shown, error = here(*SEARCH, "--floor", "depth.rmse<1", "--out", "runs/refused")
    assert (status, shown) == (1, "")
    (line,) = error.splitlines()
    assert "floor 'depth.rmse<1': the largest design of space tiny has rmse 1.533 m on validation images" in line
    assert line.endswith("ask for less, or train the supernet further")
    assert not Path("runs/refused").exists()


def test_a_run_is_pruned_and_trained_further_under_its_own_values(here: Here) -> None:
    limits = ("--floor", "depth.rmse<1.9", "--evaluations", "2")
    assert here(*SEARCH, *limits, "--out", "runs/first")[0] == 0
    status, shown, error = here("prune", "runs/first", "--budget", "90%FLOPs", "--floor", "depth.rmse<1", "--fast")
    assert (status, shown) == (1, "")
    assert "floor depth.rmse<1: design best has rmse 1." in error.splitlines()[-1]
    assert "before anything is pruned: allow that, or train it further first" in error.splitlines()[-1]
    pruned = (
        "prune",
        "runs/first",
        "--budget",
        "90%FLOPs",
        "--floor",
        "depth.rmse<1.9",
        "--fast",
        "--out",
        "runs/less",
    )
    assert here(*pruned)[0] == 0
    assert result_of("runs/less")["floors"] == ["depth.rmse<1.9"]
    tuned = ("train", "--run", "runs/first", "--steps", "2", "--batch", "2", "--sizes", "1", "--out", "runs/tuned")
    status, shown, error = here(*tuned)
    assert status == 0, error
    (check,) = result_of("runs/tuned")["best"]["limits"]
    assert (check["text"], check["allowed"]) == ("depth.rmse<1.9", 1.9)
