"""Write the README's table of measured results from the full runs kept in `benchmarks/results/`."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgemtl._files import write_atomic

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PLACE = re.compile(r"(?<=<!-- results -->\n).*?(?=<!-- /results -->)", re.S)


def table() -> str:
    """Every row of every full run, and the machines that they were made on."""
    contents = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "benchmarks/results").glob("*.json"))
    ]
    lines = ["| benchmark | figure | value | at least | aim |", "|---|---|---|---|---|"]
    for content in contents:
        lines += [_line(content["benchmark"], row) for row in content["rows"]]
    machines = sorted({_machine(content["environment"]) for content in contents})
    return "\n".join(lines) + f"\n\nMeasured on: {'; '.join(machines)}.\n"


def _line(benchmark: str, row: Mapping[str, Any]) -> str:
    limits = ["" if row[key] is None else f"{row[key]:g}" for key in ("least", "aim")]
    value = f"{row['value']:.4g} {row['unit']}" + (" (missed)" if row["holds"] is False else "")
    return f"| `{benchmark}` | {row['name'].replace('_', ' ')} | {value} | {limits[0]} | {limits[1]} |"


def _machine(environment: Mapping[str, Any]) -> str:
    cpu, packages = environment["cpu"], environment["packages"]
    versions = ", ".join(
        f"{name} {packages[name]}" for name in ("torch", "onnxruntime", "openvino") if packages.get(name)
    )
    flags = ", ".join(flag for flag in cpu["flags"] if flag.startswith(("avx512_", "amx")))
    return f"{cpu['model']}, {cpu['threads']} threads ({flags}), {versions}"


if __name__ == "__main__":
    text = README.read_text(encoding="utf-8")
    write_atomic(README, PLACE.sub(lambda _: table(), text))
