"""The report's table of what each block loses each task in INT8."""

from __future__ import annotations

import json
from pathlib import Path

from page_reader import HOSTILE, Page, check_harmless
from report_data import result_content

from edgemtl.report import write_report


def page_of(folder: Path, losses: dict[str, dict[str, float]]) -> Page:
    (folder / "result.json").write_text(json.dumps(result_content(block_losses=losses)))
    page = Page(write_report(folder).read_text())
    check_harmless(page)
    return page


def test_blocks_that_lose_a_task_most_stand_first(tmp_path: Path) -> None:
    losses = {"stem": {"depth": 0.001, "semseg": 0.0}, HOSTILE: {"depth": 0.0, "semseg": 0.25}}
    text = page_of(tmp_path, losses).text
    section = text[text.index("Blocks in INT8, one by one") :]
    assert section.index("25 %") < section.index("stem") < section.index("0.1 %")
    assert "blocks that lose less" not in text


def test_many_blocks_are_folded_and_none_have_no_section(tmp_path: Path) -> None:
    assert "3 blocks that lose less" in page_of(tmp_path, {f"b{n}": {"depth": n / 100} for n in range(15)}).text
    assert "one by one" not in page_of(tmp_path, {}).text
