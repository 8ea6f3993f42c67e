"""docs/data.md says what is so."""

from __future__ import annotations

import re
from pathlib import Path

from edgemtl.data import SPLITS, ElpvSource
from edgemtl.data.folder.models import Folders, Fractions
from edgemtl.data.folder.spec import read_spec
from edgemtl.data.scenes import ScenesSource
from edgemtl.tasks import FileSpec, all_kinds

SPECS = {kind.name: kind.labels for kind in all_kinds() if kind.labels is not None}

PAGE = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


def test_the_examples_are_read_and_use_every_key(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    seen: set[tuple[str, str]] = set()
    for block in blocks:
        (tmp_path / "data.yaml").write_text(block)
        spec = read_spec(tmp_path / "data.yaml")
        seen |= {(task.kind, key) for task in spec.tasks.values() for key in task.model_fields_set}
    for kind, model in SPECS.items():
        for key in model.model_fields:
            assert any(name == key for _, name in seen), key
        assert f"`{kind}`" in PAGE
    assert {kind for kind, _ in seen} == set(SPECS)


def test_numbers_and_defaults_are_the_code_s() -> None:
    counts = ScenesSource((8, 8)).counts
    assert all(f"{counts[split]} {split}" in PAGE for split in SPLITS)
    assert set(Folders.model_fields) == set(Fractions.model_fields) == set(SPLITS)
    assert "CC-BY-NC-SA-4.0" in ElpvSource.license_note
    for model in SPECS.values():
        if issubclass(model, FileSpec):
            assert model.model_fields["partial"].default is False
