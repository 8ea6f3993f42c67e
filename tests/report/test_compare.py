from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from report_data import broken_floor, profile_content, result_content

from edgemtl.errors import UserError
from edgemtl.report import COMPARISON_COLUMNS, compare, comparison_cells


def write(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(json.dumps(content))
    return path


def test_two_results_as_ratios(tmp_path: Path) -> None:
    second = result_content()
    second["best"]["flops"], second["best"]["macs"] = 6_000_000, 3_000_000
    second["best"]["metrics"]["depth"]["rmse"] = 0.2
    second["best"]["metrics"]["semseg"]["miou"] = 0.25
    found = compare(write(tmp_path / "a.json", result_content()), write(tmp_path / "b.json", second))
    rows = {row["what"]: row for row in found["rows"]}
    assert rows["FLOPs"]["ratio"] == 1.5 and rows["FLOPs"]["better"] == "first"
    assert rows["depth rmse"]["ratio"] == 0.5 and rows["depth rmse"]["better"] == "second"
    assert rows["semseg miou"]["ratio"] == 0.5 and rows["semseg miou"]["better"] == "first"
    assert rows["weights"]["better"] == "equal"
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert all(len(cells) == len(COMPARISON_COLUMNS) for cells in comparison_cells(found))


def weighted(depth: float, **changes: Any) -> dict[str, Any]:
    content = result_content(preference={"depth": depth, "semseg": 1.0}, **changes)
    content["best"]["weighted_delta_m"] = -0.03
    return content


def test_weighted_means_are_ranked_only_where_the_weights_are_the_same(tmp_path: Path) -> None:
    one, plain = write(tmp_path / "a.json", weighted(2)), write(tmp_path / "b.json", result_content())
    found = compare(one, write(tmp_path / "c.json", weighted(2)))
    rows = {row["what"]: row for row in found["rows"]}
    assert rows["weighted delta_m, depth=2,semseg=1"]["better"] == rows["delta_m"]["better"] == "equal"
    assert not any("preferences" in note for note in found["notes"])
    for other, preferred in ((plain, "none"), (write(tmp_path / "d.json", weighted(3)), "depth=3,semseg=1")):
        found = compare(one, other)
        rows = {row["what"]: row for row in found["rows"]}
        assert rows["weighted delta_m, depth=2,semseg=1"]["better"] is None
        assert rows["delta_m"]["better"] == "equal"
        assert any(f"preferences differ (depth=2,semseg=1 and {preferred})" in note for note in found["notes"])


def test_scores_without_a_common_yardstick_are_not_ranked(tmp_path: Path) -> None:
    here = write(tmp_path / "a.json", result_content())
    data, base = result_content(), result_content()
    data["data"] = {"name": "scenes", "fingerprint": "xyz", "scored_on": "192 test images"}
    base["front"][-1]["metrics"]["depth"]["rmse"] = 0.45
    for content, words, ranked in ((data, "different data", set()), (base, "baselines differ", {"depth rmse"})):
        found = compare(here, write(tmp_path / "b.json", content))
        rows = {row["what"]: row["better"] for row in found["rows"]}
        assert rows["delta_m"] is None
        assert {what for what in ("depth rmse",) if rows[what] is not None} == ranked
        assert rows["FLOPs"] == "equal"
        assert any(words in note for note in found["notes"])


def test_a_broken_limit_is_named(tmp_path: Path) -> None:
    content = result_content(feasible=False, floors=["depth=2%"])
    content["best"]["limits"] = broken_floor()
    found = compare(write(tmp_path / "a.json", content), write(tmp_path / "b.json", result_content()))
    assert (
        "the first breaks floor depth=2%: depth loses 5.3 % on validation images where 2 % is allowed, missed by 3.3 %"
        in found["notes"]
    )
    assert any(note.startswith("limits differ: ") and "floor depth=2% and " in note for note in found["notes"])


def test_two_profiles_say_what_is_noise_and_what_differs(tmp_path: Path) -> None:
    near, far = profile_content(factor=1.001), profile_content(factor=2.0)
    far["environment"] = {"cpu": {"model": "another"}}
    base = write(tmp_path / "a.json", profile_content())
    same = compare(base, write(tmp_path / "b.json", near))
    apart = compare(base, write(tmp_path / "c.json", far))
    what = "all tasks, p50"
    rows = [{row["what"]: row for row in each["rows"]}[what] for each in (same, apart)]
    assert rows[0]["overlap"] is True and rows[1]["overlap"] is False
    assert rows[1]["ratio"] == pytest.approx(2.0) and rows[1]["better"] == "first"
    assert {cells[0]: cells[4] for cells in comparison_cells(same)}[what] == "within noise"
    assert any("separate sessions" in note for note in same["notes"])
    assert any("processor differs: a processor and another" in note for note in apart["notes"])


def on_openvino() -> dict[str, Any]:
    profile = profile_content()
    for mode in profile["modes"]:
        mode["latency"]["runtime"] = "openvino"
    profile["runtime"] = "openvino"
    return profile


def test_two_runtimes_are_compared_and_named(tmp_path: Path) -> None:
    found = compare(write(tmp_path / "a.json", profile_content()), write(tmp_path / "b.json", on_openvino()))
    rows = {row["what"]: row["ratio"] for row in found["rows"]}
    assert rows["all tasks, p50"] == 1.0 and rows["peak memory"] == 1.0
    assert "the first was measured on host/onnxruntime, the second on host/openvino" in found["notes"]


def test_several_profiles_are_matched_by_their_runtime(tmp_path: Path) -> None:
    for side in ("a", "b"):
        (tmp_path / side).mkdir()
        write(tmp_path / side / "profile-1.json", profile_content())
    write(tmp_path / "b" / "profile-2.json", on_openvino())
    rows = {row["what"]: row["ratio"] for row in compare(tmp_path / "a", tmp_path / "b")["rows"]}
    assert rows["all tasks, p50, host/onnxruntime"] == 1.0
    assert rows["all tasks, p50, host/openvino"] is None


def test_nothing_in_common_is_an_error(tmp_path: Path) -> None:
    run = write(tmp_path / "result.json", result_content())
    with pytest.raises(UserError, match="no figure in common"):
        compare(run, write(tmp_path / "b.json", profile_content()))
    with pytest.raises(UserError, match="does not exist"):
        compare(tmp_path / "none", run)


def test_what_was_not_counted_is_missing_and_said(tmp_path: Path) -> None:
    part = {"flops": None, "macs": None, "params": 7, "weight_bytes": 28}
    counts = {"total": part, "trunk": part, "tasks": {"depth": part, "semseg": part}}
    one = {**profile_content(), "counts": counts, "notes": ["CDist 'far': its FLOPs are not counted"]}
    two = {**profile_content(), "counts": {**counts, "total": {**part, "flops": 8, "macs": 4}}}
    for name, content in (("a.json", one), ("b.json", two)):
        (tmp_path / name).write_text(json.dumps(content))
    found = compare(tmp_path / "a.json", tmp_path / "b.json")
    rows = {row["what"]: row for row in found["rows"]}
    assert (rows["MACs"]["first"], rows["MACs"]["second"]) == (None, 4.0)
    assert rows["parameters"]["first"] == 7
    assert "of the first: CDist 'far': its FLOPs are not counted" in found["notes"]
