"""A search for an FPGA: its target by the device alone, and no block that the export refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
from refusals import refused

from edgemtl.devices import load_device
from edgemtl.devices.loading import device_file
from edgemtl.models import Supernet, save_supernet
from edgemtl.nas.evaluation import one_step_down
from edgemtl.nas.runs import RunFolder
from edgemtl.nas.search import SearchRequest, search
from edgemtl.nas.search.problem import Preflight, trained_near
from edgemtl.progress import Progress
from edgemtl.runs import read_config
from edgemtl.spaces import Space, load_space
from edgemtl.targets import find_target, target_of
from edgemtl.testing.landscape import PAIR, TINY, write_space


def for_fpga(space: Space) -> Space:
    return space.for_target(find_target("hls", load_device("zcu104")).traits)


@pytest.fixture
def tiny(tmp_path: Path) -> Space:
    return load_space(str(write_space(tmp_path)), PAIR)


@pytest.mark.parametrize("device", ["zcu104", "zcu102", "kv260"])
def test_an_fpgas_runtime_names_its_target(device: str) -> None:
    assert [target_of(runtime.name) for runtime in load_device(device).runtimes] == ["hls"]


def test_a_search_for_an_fpga_has_no_depthwise_block_and_says_so(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    events: list[Progress] = []
    request = SearchRequest(
        tmp_path / "run", ("1000DSP",), space="tiny", data="photos", device="zcu104", evaluations=3, finetune=0,
        settings={"generations": 3}, supernet=home / "supernet.safetensors",
    )  # fmt: skip
    result = search(request, events.append)
    (table,) = (event for event in events if isinstance(event, Preflight))
    limited = [row.budget.text for row in table.rows]
    assert limited == ["1000DSP", "184320LUT of zcu104", "249.6BRAM of zcu104"]
    assert read_config(request.out).target == "hls"
    assert result.best is not None and result.best.design["s2.block"] == "fused"
    assert [(check.text, check.kept) for check in result.best.limits] == [(text, True) for text in limited]
    line = "left out of space tiny, since target hls cannot be built with it: s2.block depthwise"
    assert [event.text for event in events].count(line) == 1
    loaded = RunFolder(request.out).load("best")
    assert all(conv.groups == 1 for block in loaded.design.plan.blocks for conv in block.convs)


def test_a_design_must_fit_the_part_though_no_budget_says_so(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part with fewer look-up tables than the smallest design takes: refused before anything is written."""
    monkeypatch.chdir(tmp_path)
    text = device_file("zcu104").read_text().replace("zcu104", "little").replace("luts: 230400", "luts: 1000")
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "little.yaml").write_text(text)
    request = SearchRequest(
        tmp_path / "run", ("2GFLOPs",), space=str(write_space(tmp_path)), data=str(home / "photos"), device="little",
        evaluations=3, finetune=0, supernet=home / "supernet.safetensors",
    )  # fmt: skip
    line = refused(lambda: search(request))
    assert "budget '800LUT of little' allows 800 LUT, but the smallest design of space tiny takes" in line
    assert "choose a larger device" in line and not request.out.exists()


def test_options_that_a_target_lacks_are_left_out_and_the_rest_stays(tiny: Space) -> None:
    space = for_fpga(tiny)
    assert space.left_out == {"s2.block": ("depthwise",)}
    assert space.fingerprint == tiny.fingerprint
    for design in (space.smallest(), space.middle(), space.largest()):
        assert design["s2.block"] == "fused"
        assert space.decode(space.encode(design)) == design
        assert tiny.design({name: design[name] for name in design if "precision" not in name}).plan == design.plan
    assert "s2.block" not in one_step_down(space)
    assert not tiny.for_target(find_target("onnxruntime").traits).left_out


def test_a_search_begins_with_no_design_that_the_target_cannot_build(tiny: Space, tmp_path: Path) -> None:
    near = [dict(tiny.design({"s2.block": kind})) for kind in ("depthwise", "fused")]
    near = [{name: option for name, option in each.items() if "precision" not in name} for each in near]
    path = tmp_path / "supernet.safetensors"
    save_supernet(Supernet.of(tiny), path, {"space": "tiny", "fingerprint": tiny.fingerprint, "near": near})
    assert [design["s2.block"] for design in trained_near(path, for_fpga(tiny))] == ["fused"]


@pytest.mark.parametrize(
    ("name", "lacking"),
    [("moe-vit", "no tokens"), ("mobilenetv2", "no depthwise and no relu6"), ("alone", "no depthwise")],
)
def test_a_space_of_nothing_that_the_target_has_is_refused(name: str, lacking: str, tmp_path: Path) -> None:
    alone = TINY.replace("block: [depthwise, fused]", "block: [depthwise]")
    space = load_space(str(write_space(tmp_path, text=alone)) if name == "alone" else name, PAIR)
    line = refused(lambda: for_fpga(space))
    assert f"target hls has {lacking}" in line and "search another space, as --space cnn" in line
