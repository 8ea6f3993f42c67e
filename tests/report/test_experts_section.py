from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from page_reader import HOSTILE, Page, check_harmless
from report_data import manifest_content

from edgemtl.bundle import BundleExperts, Manifest, share_dropped_by_target, write_manifest
from edgemtl.report import write_report
from edgemtl.report.load import ReportData
from edgemtl.report.sections.experts import experts_section


def use(layer: str, task: str | None, experts: list[int], shares: list[float], **more: Any) -> dict[str, Any]:
    return {
        "layer": layer, "task": task, "experts": experts, "top_k": 2, "tokens": 100, "images": 48, "shares": shares,
        "gates": [0.5] * len(experts), "most_tokens": 90, "expert_bytes": 1000, **more,
    }  # fmt: skip


def content(folder: Path, *uses: dict[str, Any]) -> dict[str, Any]:
    made = manifest_content(folder)
    made["targets"]["openvino"]["dispatch"] = {"form": "segments"}
    made["targets"]["tensorrt-rtx"]["dispatch"] = {"form": "buckets", "capacity": 1.5}
    made["experts"] = list(uses) or [
        use("b2", "depth", [0, 1, 2, 3], [0.5, 0.3, 0.2, 0.0], dropped_by_target={"tensorrt-rtx": 0.02}),
        use("b2", "semseg", [2, 3, 4, 5], [0.7, 0.0, 0.296, 0.004], dropped_by_target={"tensorrt-rtx": 0.0}),
        use("b4", "depth", [0, 1], [0.25, 0.75], dropped_by_target={"tensorrt-rtx": 0.06}),
        use("b4", "semseg", [0, 1, 2], [0.2, 0.3, 0.5], dropped_by_target={"tensorrt-rtx": 0.0}),
    ]
    return made


def section(folder: Path, *uses: dict[str, Any]) -> tuple[str, Page]:
    manifest = Manifest.model_validate(content(folder, *uses))
    markup = experts_section(ReportData("net", None, manifest, (), ()))
    assert markup is not None
    return markup, Page(markup)


def rows(markup: str) -> list[list[str]]:
    """Text of every row's cells; `//` where a task does not reach the expert."""
    found = []
    for row in re.findall(r"<tr.*?</tr>", markup):
        cells = re.findall(r'<t[hd]( class="cell away")?.*?>(.*?)</t[hd]>', row)
        found.append(["//" if away else re.sub("<.*?>", "", text) for away, text in cells])
    return found


def test_a_layer_shows_experts_by_tasks(tmp_path: Path) -> None:
    markup, page = section(tmp_path)
    table = rows(markup)
    assert table[:4] == [
        ["expert", "0", "1", "2", "3", "4", "5", "top-k", "peak"],
        ["depth", "50", "30", "20", "0", "//", "//", "2 of 4", "1.80"],
        ["semseg", "//", "//", "70", "0", "30", "<1".replace("<", "&lt;"), "2 of 4", "1.80"],
        ["reached by", "●", "●", "2", "∅", "●", "●"],
    ]
    assert "Layer b2" in page.text and "Layer b4" in page.text
    check_harmless(page)


def test_shade_goes_with_the_share(tmp_path: Path) -> None:
    markup, _ = section(tmp_path)
    parts = [float(part) for part in re.findall(r"--part:([\d.]+)%", markup)]
    shares = [0.5, 0.3, 0.2, 0.0, 0.7, 0.0, 0.296, 0.004]
    assert parts[:8] == pytest.approx([58 * share / 0.7 for share in shares], abs=0.06)


def test_each_task_is_told_what_it_owns_and_shares(tmp_path: Path) -> None:
    """Of nine experts in two layers depth reaches six, two of them alone."""
    table = rows(section(tmp_path)[0])
    head = next(number for number, row in enumerate(table) if row[:2] == ["task", "experts"])
    assert table[head : head + 3] == [
        ["task", "experts", "its own", "shared", "weights of its experts", "dropped, tensorrt-rtx"],
        ["depth", "6 of 9", "2", "4 with semseg", "6.00 kB of 9.00 kB ", "4.00% (b4: 6.00%)"],
        ["semseg", "7 of 9", "3", "4 with depth", "7.00 kB of 9.00 kB ", "none"],
    ]


def test_each_target_says_what_it_drops(tmp_path: Path) -> None:
    text = section(tmp_path)[1].text
    assert "openvino sorts tokens by expert: none is dropped, on any image." in text
    assert "tensorrt-rtx gives each expert a capacity of 1.5 times an even share of the tokens: 2.00% of" in text
    assert "edgemtl export --exact" in text


def test_what_the_net_itself_drops_is_told_apart(tmp_path: Path) -> None:
    made = (
        use("b2", "depth", [0, 1], [0.5, 0.5], dropped_by_model=0.04, dropped_by_target={"tensorrt-rtx": 0.0}),
        use("b2", "semseg", [0, 1], [0.5, 0.5], dropped_by_target={"tensorrt-rtx": 0.0}),
    )
    markup, page = section(tmp_path, *made)
    table = rows(markup)
    head = next(number for number, row in enumerate(table) if row[:2] == ["task", "experts"])
    assert [row[-2] for row in table[head : head + 3]] == ["no place in the net", "4.00%", "0.00%"]
    assert "openvino sorts tokens by expert: 2.00% is dropped, as the net does." in page.text


def test_one_router_for_all_tasks_is_one_row(tmp_path: Path) -> None:
    table = rows(section(tmp_path, use("b2", None, [0, 1], [0.5, 0.5]))[0])
    assert table[1][0] == "all tasks" and table[2] == ["reached by", "2", "2"]


def test_names_are_only_text(tmp_path: Path) -> None:
    made = content(tmp_path)
    for entry in made["experts"]:
        entry["layer"] += HOSTILE
    write_manifest(tmp_path, Manifest.model_validate(made))
    page = Page(write_report(tmp_path).read_text())
    check_harmless(page)
    assert f"Layer b2{HOSTILE}" in page.text


def test_no_experts_no_section(tmp_path: Path) -> None:
    manifest = Manifest.model_validate(manifest_content(tmp_path))
    assert manifest.experts == () and manifest.targets["openvino"].dispatch is None
    assert experts_section(ReportData("net", None, manifest, (), ())) is None
    assert experts_section(ReportData("net", None, None, (), ())) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"task": "edges"}, "name a task or a target that the bundle lacks"),
        ({"dropped_by_target": {"tensorrt": 0.1}}, "name a task or a target that the bundle lacks"),
        ({"experts": [0, 0]}, "names an expert twice"),
        ({"shares": [1.0]}, "names an expert twice, or other experts than it has shares"),
        ({"shares": [0.5, 1.5]}, "less than or equal to 1"),
        ({"experts": [], "shares": [], "gates": []}, "at least 1 item"),
        ({"tokens": 0}, "greater than or equal to 1"),
    ],
)
def test_entries_that_cannot_be_are_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    made = content(tmp_path, {**use("b2", "depth", [0, 1], [0.5, 0.5]), **change})
    with pytest.raises(ValueError, match=reason):
        Manifest.model_validate(made)


def test_dropped_tokens_weigh_as_many_as_are_sent() -> None:
    one = BundleExperts.model_validate(use("b2", "depth", [0], [1.0], top_k=1, dropped_by_target={"t": 0.4}))
    three = BundleExperts.model_validate(use("b2", "semseg", [0], [1.0], top_k=3, dropped_by_target={"t": 0.0}))
    assert share_dropped_by_target([one, three], "t") == pytest.approx(0.1)
    assert share_dropped_by_target([], "t") == 0
