"""A family of nets in two files of its own: found, trained, searched, pruned, exported, profiled and drawn."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from page_reader import Page, check_harmless
from plugged import install

from edgemtl.data import collate, open_source
from edgemtl.errors import UserError
from edgemtl.export import ExportRequest, export_run
from edgemtl.nas.prune import PruneRequest, RunDesign, prune
from edgemtl.nas.runs import RunFolder
from edgemtl.nas.search import SearchRequest, search
from edgemtl.profiling import profile
from edgemtl.report import write_report
from edgemtl.results import read_result
from edgemtl.runtime import open_engine
from edgemtl.spaces import Space, load_space
from edgemtl.targets import find_target
from edgemtl.testing import FamilyConformance
from edgemtl.testing.world import TASKS, write_data
from edgemtl.train import Recipe, train_supernet

SPACE = """\
schema: edgemtl.space/1
family: exits
input: [64, 64]
exits:
  width: [8, 16]
  depth: [1, 2]
  stages: 2
  decoder: {width: [8, 16], depth: [1]}
"""
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working directory with data and a space, and the plug-in installed."""
    folder, site = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("site")
    entries = {
        "edgemtl.families": ("exits = exits_family:FAMILY", "exits_family.py"),
        "edgemtl.blocks": ("squeeze_excite = exits_blocks:build", "exits_blocks.py"),
    }
    for group, (entry, file) in entries.items():
        install(site, group, entry, (HERE / file).read_text())
    (folder / "nas").mkdir()
    (folder / "nas" / "exits.yaml").write_text(SPACE)
    write_data(folder / "photos")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(site))
        patch.chdir(folder)
        yield folder


class TestExits(FamilyConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def space(cls, home: Path) -> Space:
        return load_space("exits", TASKS)


@pytest.fixture(scope="module")
def pruned(home: Path) -> Path:
    """A run that was trained for a few steps and searched, and whose largest net was pruned, whichever was chosen."""
    source = open_source("photos", (64, 64))
    space = load_space("exits", source.tasks)
    recipe = Recipe(steps=3, batch=2, sizes=(1.0,), bf16=False)
    supernet = train_supernet(space, source, recipe, home / "trained")
    few = {"space": "exits", "data": "photos", "evaluations": 2, "batch": 2, "threads": 1, "finetune": 0}
    search(SearchRequest(home / "run", ("100%FLOPs",), supernet=supernet, **few))  # type: ignore[arg-type]
    prune(PruneRequest(RunDesign(home / "run", "baseline"), home / "pruned", ("70%FLOPs",), fast=True))
    return home / "pruned"


def test_pruning_keeps_the_ties_of_the_gates(pruned: Path) -> None:
    candidate = RunFolder(pruned).load("best")
    before = RunFolder(pruned).load("baseline").design
    assert candidate.design.cost().flops <= 0.7 * before.cost().flops
    assert candidate.design.pruned
    for block in candidate.design.plan.blocks:
        if block.kind == "squeeze_excite":
            conv, squeeze, excite = block.convs
            assert conv.outputs == excite.outputs == squeeze.inputs


def test_the_engine_answers_as_the_net(pruned: Path, tmp_path: Path) -> None:
    net = RunFolder(pruned).load("best").net
    find_target("onnxruntime").build(net, {"engine": "fp32"}, None, tmp_path)
    image = collate([open_source("photos", (64, 64)).split("test")[0]]).image
    with closing(open_engine(tmp_path)) as session, torch.no_grad():
        answers = leaves(session.run(image, [task.name for task in TASKS]))
        for found, expected in zip(answers, leaves(net(torch.from_numpy(image))), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def leaves(answers: object) -> list[object]:
    """Every tensor of dictionaries by task, or by task and output."""
    return [leaf for each in answers.values() for leaf in leaves(each)] if isinstance(answers, dict) else [answers]


def test_the_bundle_holds_its_blocks_and_is_profiled_by_them(pruned: Path) -> None:
    manifest = export_run(pruned, ExportRequest("onnxruntime"))
    net = RunFolder(pruned).load("best").net
    assert manifest.targets["onnxruntime"].parity.keys() == {task.name for task in TASKS}
    assert {block.name for block in manifest.blocks} == {step.name for step in net.wiring}
    measured = profile(pruned / "bundle", runs=20, threads=1)
    assert measured.operators is not None
    owners = {row.name: row.owner for row in measured.operators.by_block}
    assert owners["depth_head"] == "depth" and owners["e1_1"] == ""


def test_the_report_draws_it(pruned: Path) -> None:
    best = read_result(pruned).best
    assert best is not None and {block.kind for block in best.blocks} >= {"squeeze_excite"}
    text = write_report(pruned).read_text()
    page = Page(text)
    check_harmless(page)
    assert "exit 1" in page.text and "squeeze excite" in page.text and "Where the cost goes" in page.text


def test_without_its_package_a_space_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text(SPACE.replace("family: exits", "family: exit"))
    with pytest.raises(UserError, match="unknown network family"):
        load_space(str(tmp_path / "other.yaml"), TASKS)
