from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def contracts() -> list[dict[str, object]]:
    found: list[dict[str, object]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
        "contracts"
    ]
    return found


def modules() -> set[str]:
    entries = [
        path for path in (ROOT / "edgemtl").iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()
    ]
    return {path.stem for path in entries} - {"__init__", "__main__"}


def test_arrows_point_down_the_house() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Contracts: 3 kept, 0 broken" in done.stdout


def test_every_module_has_its_floor() -> None:
    layers = contracts()[0]["layers"]
    assert isinstance(layers, list)
    assert modules() == {name for layer in layers for name in re.split(r"\s*[:|]\s*", layer)}


def test_no_floor_up_to_the_data_may_see_torch() -> None:
    lower = modules() - {"cli", "export", "nas", "targets", "train", "models"}
    assert contracts()[2]["source_modules"] == sorted(f"edgemtl.{name}" for name in lower)
