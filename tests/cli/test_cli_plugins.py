"""Plug-ins that are broken: one line for who asks for them, and no harm to anything else."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from plugged import install

from edgemtl.cli import main
from edgemtl.tasks import all_kinds, make_task

EMPTY = "class Mine:\n    def __init__(self, *given, **named):\n        pass\n"
SPACE = "schema: edgemtl.space/1\nfamily: mine\ninput: [64, 64]\nprecision: [float]\nmine: {}\n"
CASES = {
    "targets": (["search", "--budget", "1GFLOPs", "--target", "mine"], "target 'mine'", "build, device, dispatch"),
    "strategies": (
        ["search", "--budget", "1GFLOPs", "--strategy", "mine"],
        "strategy 'mine'",
        "config, needs, prepare",
    ),
    "sources": (["tasks", "--data", "mine"], "data set 'mine'", "fingerprint, license_note"),
    "families": (["search", "--budget", "1GFLOPs", "--space", "mine"], "network family 'mine'", "a type, not a Family"),
    "quantities": (["search", "--budget", "1MINE"], "quantity 'mine'", "a type, not a Quantity"),
}


@pytest.fixture(autouse=True)
def _forget_kinds() -> Iterator[None]:
    all_kinds.cache_clear()
    yield
    all_kinds.cache_clear()


@pytest.mark.parametrize("broken", [EMPTY, "Mine = 3\n", "raise RuntimeError('two\\nlines')\n", "other = 1\n"])
@pytest.mark.parametrize("group", CASES)
def test_a_broken_plug_in_is_named_on_one_line(
    site: Path, group: str, broken: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words, what, reason = CASES[group]
    install(site, f"edgemtl.{group}", "mine = her_tool:Mine", broken)
    (site / "nas").mkdir()
    (site / "nas" / "mine.yaml").write_text(SPACE)
    assert main(words) == 1
    errors = capsys.readouterr().err
    assert errors.startswith(f"error: {what}, which her_tool:Mine brings, ")
    assert errors.endswith(": mend or uninstall that package\n") and errors.count("\n") == 1
    assert broken is not EMPTY or reason in errors


@pytest.mark.parametrize(
    ("verb", "group", "lists"), [("tasks", "kinds", "segmentation"), ("targets", "targets", "openvino")]
)
def test_a_listing_warns_of_a_broken_plug_in_and_lists_the_rest(
    site: Path, verb: str, group: str, lists: str, capsys: pytest.CaptureFixture[str]
) -> None:
    install(site, f"edgemtl.{group}", "mine = her_tool:Mine", EMPTY)
    assert main([verb]) == 0
    shown = capsys.readouterr()
    assert lists in shown.out and shown.err.startswith("warning: ") and "'mine', which her_tool:Mine" in shown.err


def test_a_broken_kind_hides_no_other_and_is_blamed_in_the_file_that_names_it(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    install(site, "edgemtl.kinds", "mine = her_tool:Mine", "raise RuntimeError('broken')\n")
    assert {"depth", "segmentation"} <= {kind.name for kind in all_kinds()}
    (site / "data.yaml").write_text("images: photos\ntasks:\n  a: {kind: mine, files: '{name}.png'}\n")
    assert main(["tasks", "--data", "data.yaml"]) == 1
    assert "task kind 'mine', which her_tool:Mine brings, cannot be loaded (RuntimeError" in capsys.readouterr().err


def test_outputs_of_a_kind_have_names_of_their_own(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kind = (
        "from edgemtl.tasks import Output, find_kind\n"
        "class Twice(type(find_kind('depth'))):\n    name = 'twice'\n"
        "    def outputs(self, task):\n        return (Output('map', 1, True), Output('map', 1, True))\n"
        "twice = Twice()\n"
    )
    install(site, "edgemtl.kinds", "twice = her_kind:twice", kind)
    assert main(["tasks"]) == 0
    shown = capsys.readouterr()
    assert "depth" in shown.out and "warning: task kind twice gives the outputs map, map: it must give" in shown.err
    assert make_task("far", "depth").outputs
