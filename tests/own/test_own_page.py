"""The page about nets of one's own says what is so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from edgemtl.own import Declaration, read_declaration

PAGE = (Path(__file__).parents[2] / "docs" / "own-net.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.M | re.S)


def test_the_page_s_module_becomes_a_bundle(site: Path) -> None:
    module, snippet = blocks("python")
    (site / "heads.py").write_text(module)
    names: dict[str, Any] = {}
    exec(compile(snippet, "own-net.md", "exec"), names)
    assert names["manifest"].targets["onnxruntime"].parity["points"].engine > 0.999
    (site / "tasks.yaml").write_text(blocks("yaml")[0])
    declared = read_declaration(site / "tasks.yaml")
    proposed: Declaration = names["propose_tasks"](names["net"])
    assert declared == proposed and yaml.safe_load(blocks("yaml")[0])["unused"] == []
