from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

Shell = Callable[..., subprocess.CompletedProcess[str]]

HEAVY = ("numpy", "onnx", "onnxruntime", "optuna", "pydantic", "rich", "torch", "yaml")
PROBE = f"""
import sys
from edgemtl.cli import main
status = main(sys.argv[1:])
print(sorted(set(sys.modules) & set({HEAVY})), file=sys.stderr)
sys.exit(status)
"""


@pytest.mark.parametrize("words", [("--help",), ("search", "--help"), ("--version",)])
def test_help_imports_nothing_heavy(shell: Shell, words: tuple[str, ...]) -> None:
    done = shell(*words, prefix=("-c", PROBE))
    assert (done.returncode, done.stderr.strip()) == (0, "[]")
    assert "edgemtl" in done.stdout


def test_the_probe_sees_what_a_verb_imports(shell: Shell) -> None:
    done = shell("devices", prefix=("-c", PROBE))
    assert done.returncode == 0
    assert "pydantic" in done.stderr and "torch" not in done.stderr
