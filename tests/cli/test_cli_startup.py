from __future__ import annotations

from pathlib import Path

import pytest
from chain import edgemtl

HEAVY = ("numpy", "onnx", "onnxruntime", "optuna", "pydantic", "rich", "torch", "yaml")
PROBE = f"""
import sys
from edgemtl.cli import main
status = main(sys.argv[1:])
print(sorted(set(sys.modules) & set({HEAVY})), file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.parametrize("words", [("--help",), ("search", "--help"), ("--version",)])
def test_help_imports_nothing_heavy(tmp_path: Path, words: tuple[str, ...]) -> None:
    done = edgemtl(tmp_path, *words, prefix=("-c", PROBE))
    assert (done.returncode, done.stderr.strip()) == (0, "[]")
    assert "edgemtl" in done.stdout


def test_the_probe_sees_what_a_verb_imports(tmp_path: Path) -> None:
    done = edgemtl(tmp_path, "devices", prefix=("-c", PROBE))
    assert done.returncode == 0
    assert "pydantic" in done.stderr and "torch" not in done.stderr
