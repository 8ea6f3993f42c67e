from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from page_reader import HOSTILE, Page, check_harmless
from PIL import Image
from report_data import broken_floor, entry_content, manifest_content, profile_content, result_content

from edgemtl.bundle import Manifest, write_manifest
from edgemtl.errors import UserError
from edgemtl.report import write_report
from edgemtl.report.load import ReportData
from edgemtl.report.page import render
from edgemtl.results import Result


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "first"
    (folder / "pictures").mkdir(parents=True)
    (folder / "result.json").write_text(json.dumps(result_content()))
    (folder / "profile.json").write_text(json.dumps(profile_content()))
    pixels = np.random.default_rng(0).integers(0, 255, (60, 800, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / "pictures" / "a_sheet.png")
    return folder


def test_a_run_tells_everything(run: Path) -> None:
    file = write_report(run)
    assert file == run / "report.html"
    page = Page(file.read_text())
    check_harmless(page)
    for words in (
        "keeps 5MFLOPs, 60%FLOPs and 8ms@host/onnxruntime",
        "4.00 MFLOPs (2.00 MMACs)",
        "6.10 ms measured on host/onnxruntime",
        "Pareto front",
        "scenes, scored on 192 test images",
        "★\u00a0chosen",
        "◆\u00a0baseline",
        "○\u00a0breaks a limit",
        "The worst task is depth (-5.3 %).",
        "Where the cost goes",
        "Is sharing worth it?",
        "other processes took 30% of the machine",
        "depth_head",
        "How each number was obtained",
        "a sheet",
        "a processor",
    ):
        assert words in page.text, words
    assert file.stat().st_size < 5_000_000
    titles = page.text.count("delta_m -2.0 %")
    assert titles >= 2


def test_a_fine_tuned_answer_says_for_how_long_and_what_for(tmp_path: Path) -> None:
    content = result_content()
    content["best"]["fine_tuning"] = {"steps": 150, "delta_m_before": -0.054, "delta_m_after": -0.02}
    (tmp_path / "result.json").write_text(json.dumps(content))
    text = Page(write_report(tmp_path).read_text()).text
    assert "fine-tuned 150 steps, delta_m on validation images -5.4 % before, -2.0 % after" in " ".join(text.split())


def test_a_profile_of_an_engine_that_was_replaced_is_left_out(tmp_path: Path) -> None:
    content = manifest_content(tmp_path)
    manifest = Manifest.model_validate(content)
    write_manifest(tmp_path, manifest)
    own = {**profile_content(), "target": "openvino", "runtime": "openvino"}
    for digest, shown in ((manifest.engine_sha256("openvino"), True), (None, True), ("0" * 64, False)):
        (tmp_path / "profile.json").write_text(json.dumps({**own, "engine_sha256": digest}))
        text = Page(write_report(tmp_path).read_text()).text
        assert ("Latency on host/openvino" in text) == shown
        assert ("profile.json measures an engine that the bundle does not hold" in text) == (not shown)


def test_the_policy_forbids_network_and_scripts(run: Path) -> None:
    page = Page(write_report(run).read_text())
    policies = [str(a["content"]) for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1 and policies[0].startswith("default-src 'none'")
    assert "script-src" not in policies[0]


def hostile(value: Any) -> Any:
    """Every name and free text of a file replaced by something that wants out of its place."""
    if isinstance(value, dict):
        return {f"{key}{HOSTILE}" if key in FREE else key: hostile(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [hostile(each) for each in value]
    if isinstance(value, str) and value not in KEPT:
        return f"{value}{HOSTILE}"
    return value


FREE = {"depth", "semseg", "rmse", "s1.width", "depth.width", "stem.precision", "python", "model"}
KEPT = {"edgemtl.result/1", "edgemtl.profile/1", "measured", "derived", "baseline", "candidate", "bundle", "unknown"}


def test_hostile_names_are_only_text(run: Path) -> None:
    (run / "result.json").write_text(json.dumps(hostile(result_content())))
    content = hostile(profile_content())
    content["name"] = HOSTILE
    (run / "profile.json").write_text(json.dumps(content))
    folder = run.rename(run.with_name("a<b>&'run"))
    page = Page(write_report(folder).read_text())
    check_harmless(page)
    assert page.text.count("<script>alert(1)</script>") > 20
    assert "a<b>&'run" in page.text
    assert all("script>" not in str(attributes.get("class")) for _, attributes in page.tags)


def test_a_result_alone_is_enough(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(result_content()))
    page = Page(write_report(tmp_path / "result.json", tmp_path / "out.html").read_text())
    assert "Pareto front" in page.text and "Latency on" not in page.text


def test_energy_stands_with_its_uncertainty_or_with_why_it_was_not_measured(tmp_path: Path) -> None:
    figure = {"mj": 12.5, "uncertainty_mj": 0.25}
    energy = {"rails": ["VDD_IN"], "rate_hz": 96.4, "idle_w": 4.2, "modes": {"all tasks": figure}, "visits": {}}
    measured = {**profile_content(), "energy": {**energy, "marginal": {"depth": figure}}}
    missing = {**profile_content(), "energy_unmeasured": "it has no <sensor>"}
    texts = []
    for content in (measured, missing):
        (tmp_path / "profile.json").write_text(json.dumps(content))
        write_report(tmp_path / "profile.json", tmp_path / "page.html")
        texts.append((tmp_path / "page.html").read_text())
    assert "12.5 ± 0.25 mJ above 4.2 W of idling; VDD_IN, power read 96 times a second and integrated." in texts[0]
    assert "Each task at the margin: depth 12.5 ± 0.25 mJ." in texts[0]
    assert "Not measured: it has no &lt;sensor&gt;." in texts[1]


def test_where_blocks_ran_and_the_machine_s_state_stand_with_the_figures(tmp_path: Path) -> None:
    content = profile_content()
    assert "ran on" not in Page(render_profile(tmp_path, content)).text, "its runtime does not tell"
    for share, unit in zip(content["operators"]["by_block"], ("dla", "gpu (fallback)"), strict=True):
        share["unit"] = unit
    sensors = {"power_mode": "15W", "clocks_mhz": {"17000000.gpu": 625}}
    page = Page(render_profile(tmp_path, {**content, "environment": {"sensors": {"before": sensors}}}))
    assert "blockran onoperators" in page.text and "gpu (fallback)" in page.text
    assert "power mode 15W; MHz: 17000000.gpu 625; throttling is not known" in page.text


def render_profile(folder: Path, content: dict[str, Any]) -> str:
    """The page of a profile alone."""
    (folder / "profile.json").write_text(json.dumps(content))
    return write_report(folder / "profile.json", folder / "page.html").read_text()


def test_a_profile_alone_is_enough(tmp_path: Path) -> None:
    (tmp_path / "profile.json").write_text(json.dumps(profile_content()))
    page = Page(write_report(tmp_path).read_text())
    assert "Latency on host/onnxruntime" in page.text
    assert "hidden" in page.text
    check_harmless(page)


def test_nothing_feasible_is_said_first(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(result_content(best=None, feasible=False)))
    assert "nothing keeps 5MFLOPs" in Page(write_report(tmp_path).read_text()).text
    (tmp_path / "result.json").write_text(json.dumps(result_content(feasible=False)))
    assert "breaks a budget or floor" in Page(write_report(tmp_path).read_text()).text, "an older result names none"
    empty = result_content(best=None, front=[], budgets=[], feasible=False)
    (tmp_path / "result.json").write_text(json.dumps(empty))
    Page(write_report(tmp_path).read_text())


def test_the_limit_that_is_broken_is_named_and_those_that_are_kept(tmp_path: Path) -> None:
    content = result_content(feasible=False, budgets=["5MFLOPs"], floors=["depth=2%"])
    content["best"]["limits"] = broken_floor()
    (tmp_path / "result.json").write_text(json.dumps(content))
    page = Page(write_report(tmp_path).read_text())
    check_harmless(page)
    assert "breaks 5MFLOPs" not in page.text
    for words in (
        "breaks floor depth=2%",
        "depth loses 5.3 % on validation images where 2 % is allowed, missed by 3.3 %. No design keeps every limit",
        "the nearest takes 4.00 MFLOPs",
        "Budgets and floors",
        "5.3 % lost",
        "broken by 3.3 % of the baseline",
        "on test images",
    ):
        assert words in page.text, words


def test_two_means_are_both_named(tmp_path: Path) -> None:
    content = result_content(preference={"depth": 2.0, "semseg": 1.0})
    plain, heavy = -(0.02 / 0.38 + 0.02 / 0.52) / 2, -(2 * 0.02 / 0.38 + 0.02 / 0.52) / 3
    for entry in (content["best"], content["front"][0]):
        entry |= {"delta_m": plain, "weighted_delta_m": heavy}
    (tmp_path / "result.json").write_text(json.dumps(content))
    page = Page(write_report(tmp_path).read_text())
    for words in (
        "Their mean is delta_m = -4.6 %; weighted by depth=2,semseg=1 it is -4.8 %.",
        "preference depth=2,semseg=1",
        "weighted by depth=2,semseg=1), left is cheaper",
    ):
        assert words in page.text, words
    charts = [str(a["aria-label"]) for tag, a in page.tags if tag == "svg" and a.get("role") == "img"]
    assert charts[0] == "weighted delta_m against FLOPs"


def test_an_older_result_that_hides_its_weights_is_not_believed(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text(json.dumps(result_content()))
    text = Page(write_report(tmp_path).read_text()).text
    assert "Their mean is -4.6 %; the result's delta_m, -2.0 %, has weights that it does not record." in text


def test_latencies_of_different_kinds_never_share_a_chart(tmp_path: Path) -> None:
    predicted = {"value": 5.0, "kind": "predicted", "device": "jetson-orin-nano", "runtime": "tensorrt"}
    content = result_content()
    content["front"].append(entry_content(design={"stem.width": 9}, latency_ms=predicted))
    content["front"].append(entry_content(design={"stem.width": 10}, latency_ms=None))
    (tmp_path / "result.json").write_text(json.dumps(content))
    page = Page(write_report(tmp_path).read_text())
    charts = [str(a["aria-label"]) for tag, a in page.tags if tag == "svg" and a.get("role") == "img"]
    assert charts == [
        "delta_m against FLOPs",
        "delta_m against measured latency on host/onnxruntime",
        "delta_m against predicted latency on jetson-orin-nano/tensorrt",
    ]
    assert "not measured" in page.text


def test_a_prediction_stands_with_its_error_and_the_page_says_what_is_known_from_where(tmp_path: Path) -> None:
    on_host = {"device": "host", "runtime": "onnxruntime"}
    best = entry_content(latency_ms={"value": 5.0, "kind": "predicted", "error": 0.031, **on_host})
    known_from = {"latency of candidates": "predicted by a table", "sensitivities": "measured in this run"}
    content = result_content(best=best, known_from=known_from)
    content["front"][0] = best
    (tmp_path / "result.json").write_text(json.dumps(content))
    page = Page(write_report(tmp_path).read_text())
    assert page.text.count("error 3.1 %") >= 2, "in the tile and in the table"
    assert all(text in page.text for pair in known_from.items() for text in pair)


def test_many_designs_stand_behind_a_click(tmp_path: Path) -> None:
    content = result_content()
    content["front"] += [entry_content(design={"stem.width": i}, delta_m=-i / 1000) for i in range(100, 400)]
    (tmp_path / "result.json").write_text(json.dumps(content))
    file = write_report(tmp_path)
    assert "The 200 cheapest of 304 designs" in Page(file.read_text()).text
    assert file.stat().st_size < 1_000_000


def test_a_bundle_shows_parity_and_cost(tmp_path: Path) -> None:
    write_manifest(tmp_path, Manifest.model_validate(manifest_content(tmp_path)))
    page = Page(write_report(tmp_path).read_text())
    check_harmless(page)
    for words in (
        "Parity of the exported engines",
        "on the same images (48 validation images)",
        "1e-05 log-metres",
        "rmse at most 3 % worse",
        "-10.0 %",
        "1e-05",
        "not run where it was exported",
        "for openvino, tensorrt-rtx",
        "Where the cost goes",
        "192 x 256",
        "float (bf16 in the engine)",
    ):
        assert words in page.text, words


@pytest.mark.parametrize(("checked", "called"), [("engine", False), ("simulation", True)])
def test_parity_of_what_did_not_run_is_called_simulated(tmp_path: Path, checked: str, called: bool) -> None:
    content = manifest_content(tmp_path)
    for target in content["targets"].values():
        target["checked"] = checked
    write_manifest(tmp_path, Manifest.model_validate(content))
    section = write_report(tmp_path).read_text().partition("Parity of the exported engines")[2].partition("</table>")[0]
    assert (">simulated<" in section) == called


def test_a_changed_bundle_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path, Manifest.model_validate(manifest_content(tmp_path)))
    (tmp_path / "engines/openvino/e").write_text("another engine")
    with pytest.raises(UserError, match="was changed"):
        write_report(tmp_path)


def test_pictures_are_read_not_trusted(run: Path) -> None:
    (run / "pictures" / "evil.png").write_bytes(b"<script>alert(1)</script>")
    with pytest.raises(UserError, match=r"evil\.png: cannot be read \(no content"):
        write_report(run)


def test_a_large_picture_becomes_a_small_one(run: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (700, 1600, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(run / "pictures" / "large.png", compress_level=1)
    assert write_report(run).stat().st_size < 1_500_000


def test_many_pictures_do_not_make_a_heavy_page(run: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    for number in range(20):
        Image.fromarray(pixels).save(run / "pictures" / f"b{number:02}.png", compress_level=1)
    file = write_report(run)
    assert 3 < sum(tag == "img" for tag, _ in Page(file.read_text()).tags) < 20
    assert 2_000_000 < file.stat().st_size < 5_000_000


@pytest.mark.parametrize("content", ["{}", '{"schema": "other/1"}', "nonsense"])
def test_foreign_files_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "file.json").write_text(content)
    with pytest.raises(UserError) as caught:
        write_report(tmp_path / "file.json")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=r"holds no result\.json"):
        write_report(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        write_report(tmp_path / "none")


def test_an_onnx_file_is_told_what_is_reported(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").write_bytes(b"\x08\x09\x12\x07pytorch\xff")
    with pytest.raises(UserError, match=r"net\.onnx is no result, .*edgemtl profile .*net\.onnx writes a profile"):
        write_report(tmp_path / "net.onnx")


TIMES = ({"time_utc": "2026-11-28T18:03:11+00:00", "load_average": [0.8, 1.0, 1.0]}, "2026-11-29T09:10:11+00:00")


@pytest.mark.parametrize("stable", [True, False])
def test_of_two_latencies_each_says_when_and_what_it_counts_for(tmp_path: Path, stable: bool) -> None:
    profile = profile_content(4.0)
    profile["environment"]["time_utc"] = TIMES[1]
    profile["stability"] |= {"stable": stable, "reasons": []}
    (tmp_path / "result.json").write_text(json.dumps(result_content(environment=TIMES[0])))
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    page = Page(write_report(tmp_path).read_text())
    assert "6.10 ms, measured by the search on 2026-11-28 18:03 UTC at a load of 0.80, decided the budgets" in page.text
    assert "24.0 ms, measured by the profile on 2026-11-29 09:10 UTC at a load of 1.50:" in page.text
    assert ("unstable, so it does not count" in page.text) is not stable
    assert ("counts for what is deployed" in page.text) is stable
    tile = page.text.partition("24.0 ms ")[2]
    assert tile.startswith("unstable" if not stable else "median of 200")


def test_notes_and_a_count_that_is_not_there_are_said(tmp_path: Path) -> None:
    part = {"flops": None, "macs": None, "params": 7, "weight_bytes": 28}
    counts = {"total": part, "trunk": {**part, "flops": 8, "macs": 4}, "tasks": {"depth": part, "semseg": part}}
    content = {**profile_content(), "counts": counts, "notes": ["CDist 'far': its FLOPs are not counted"]}
    (tmp_path / "profile.json").write_text(json.dumps(content))
    page = Page(write_report(tmp_path).read_text())
    assert "not counted" in page.text and "CDist 'far': its FLOPs are not counted" in page.text
    assert "0 FLOPs" not in page.text


def test_a_wide_table_scrolls_inside_its_card(run: Path) -> None:
    text = write_report(run).read_text()
    page = Page(text)
    assert re.search(r"^\.scroll \{[^}]*overflow-x: auto", text, flags=re.M)
    assert not re.search(r"^(body|main|section|\.card) \{[^}]*overflow", text, flags=re.M)  # nothing around it cuts off
    assert [tag for tag, _ in page.tags].count("table") == sum(
        attributes.get("class") in ("scroll", "experts") for _, attributes in page.tags
    )


def test_budgets_of_one_task_draw_no_line(tmp_path: Path) -> None:
    result = Result.model_validate(result_content(budgets=["depth:1MFLOPs", "60%FLOPs", "strange"]))
    page = render(ReportData("x", result, None, (), ()))
    assert "limit-text" not in page.partition("</style>")[2]


def test_a_budget_is_drawn_only_where_it_is_measured() -> None:
    here, there = ("8ms@host/onnxruntime", "8ms@host/openvino")
    for text, drawn in ((here, True), (there, False), ("8ms", True)):
        result = Result.model_validate(result_content(budgets=[text]))
        page = render(ReportData("x", result, None, (), ())).partition("</style>")[2]
        assert ("limit-text" in page) == drawn


@pytest.mark.parametrize("name", ["result.json", "profile.json", "pictures/a_sheet.png", "pictures", "bundle"])
def test_what_lies_outside_the_folder_does_not_enter_the_page(run: Path, name: str) -> None:
    outside = run.parent / "outside"
    outside.mkdir()
    if name == "bundle":
        (outside / "bundle").mkdir()
        (outside / "bundle" / "manifest.json").write_text("{}")
    else:
        (run / name).rename(outside / Path(name).name)
    (run / name).symlink_to(outside / Path(name).name)
    with pytest.raises(UserError, match="which lies outside it: refused"):
        write_report(run)


@pytest.mark.parametrize("name", ["result.json", "profile.json", "pictures/a_sheet.png"])
def test_a_pipe_is_not_waited_for(run: Path, name: str) -> None:
    (run / name).unlink()
    os.mkfifo(run / name)
    with pytest.raises(UserError, match=r"regular file|has no result\.json"):
        write_report(run)


def test_a_file_that_is_no_report_is_not_replaced(run: Path, tmp_path: Path) -> None:
    mine = tmp_path / "notes.html"
    mine.write_text("<p>mine</p>")
    with pytest.raises(UserError, match="exists and is no report: choose another --out"):
        write_report(run, mine)
    assert mine.read_text() == "<p>mine</p>"
    file = write_report(run, tmp_path / "page.html")
    assert write_report(run, file) == file
