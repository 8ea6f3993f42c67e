"""Write the tables of results: all rows into docs/results.md, those that decide into the README, a column a class.

The figures are those of the full runs in `benchmarks/results/CLASS/`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from edgemtl.files.disk import write_atomic

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "results.md"
PLACE = re.compile(r"(?<=<!-- results -->\n).*?(?=<!-- /results -->)", re.S)
DECIDING = {
    ("against_int8", "onnxruntime_latency"): "latency against the stock INT8 quantizer, ONNX Runtime",
    ("precision_floor", "worst_design_on_onnxruntime"): "against the best uniform precision, ONNX Runtime",
    ("precision_floor", "worst_design_on_openvino"): "against the best uniform precision, OpenVINO",
    ("engine_vs_simulation", "equal_values_on_onnxruntime_own"): "INT8 values equal to the bit of their simulation",
    ("portable_cost", "worst_metric_loss_on_onnxruntime"): "a task's metric lost to be right on every processor",
    ("portable_cost", "latency_on_onnxruntime"): "latency of what is right on every processor",
    ("task_subset", "worst_task_on_onnxruntime"): "one task of a bundle against an engine of its own",
    ("moe_vs_dense", "onnxruntime_fp32"): "experts against the dense ViT of equal FLOPs, ONNX Runtime",
    ("prune_peers", "delta_m_ahead_of_best_peer"): "delta_m ahead of group-Taylor and group-magnitude pruning",
    ("design_ladder", "delta_m_lost_largest_to_chosen"): "delta_m that 2 GFLOPs cost, untuned, of the largest net's 4",
}
"""The ten figures of the README."""

Runs = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""Class of processor to benchmark to its full run."""


def runs() -> Runs:
    """Every full run that is kept."""
    return {
        folder.name: {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))}
        for folder in sorted(RESULTS.iterdir())
        if folder.is_dir()
    }


def deciding_table(kept: Runs) -> str:
    """The figures that decide, a column a class of processor, for the README."""
    lines = _head(("what", *kept, "at least", "aim"))
    for (benchmark, figure), title in DECIDING.items():
        rows = {name: _rows(kept[name], benchmark).get(figure) for name in kept}
        lines.append(_line((f"{title} (`{benchmark}`)",), rows))
    return "\n".join(lines) + "\n"


def full_table(kept: Runs) -> str:
    """Every figure of every benchmark, and the machines that they were measured on."""
    lines = _head(("benchmark", "figure", *kept, "at least", "aim"))
    for benchmark in sorted({name for found in kept.values() for name in found}):
        of_class = {name: _rows(kept[name], benchmark) for name in kept}
        for figure in dict.fromkeys(figure for rows in of_class.values() for figure in rows):
            shown = (f"`{benchmark}`", figure.replace("_", " "))
            lines.append(_line(shown, {name: rows.get(figure) for name, rows in of_class.items()}))
    machines = "\n".join(f"- `{name}`: {text}" for name in kept for text in _machines(kept[name].values()))
    return "\n".join(lines) + f"\n\nMeasured on:\n\n{machines}\n"


def _head(titles: Iterable[str]) -> list[str]:
    titles = list(titles)
    return [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]


def _rows(found: Mapping[str, Mapping[str, Any]], benchmark: str) -> dict[str, Mapping[str, Any]]:
    return {row["name"]: row for row in found.get(benchmark, {}).get("rows", [])}


def _line(titles: tuple[str, ...], rows: Mapping[str, Mapping[str, Any] | None]) -> str:
    """One figure on each class; what is asked of it is the same on all."""
    asked = next((row for row in rows.values() if row is not None), {})
    limits = ["" if asked.get(key) is None else f"{asked[key]:g}" for key in ("least", "aim")]
    cells = [*titles, *(_value(row) for row in rows.values()), *limits]
    return f"| {' | '.join(cells)} |"


def _value(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    return f"{row['value']:.4g} {row['unit']}".rstrip() + (" (missed)" if row["holds"] is False else "")


def _machines(found: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted({_machine(run["environment"]) for run in found})


def _machine(environment: Mapping[str, Any]) -> str:
    cpu, packages = environment["cpu"], environment["packages"]
    versions = ", ".join(
        f"{name} {packages[name]}" for name in ("torch", "onnxruntime", "openvino") if packages.get(name)
    )
    return f"{cpu['model']}, {cpu['threads']} threads, {versions}"


def main() -> None:
    """Write both tables."""
    kept = runs()
    for page, table in ((README, deciding_table(kept)), (PAGE, full_table(kept))):
        text = page.read_text(encoding="utf-8")
        write_atomic(page, PLACE.sub(lambda _, table=table: table, text))


if __name__ == "__main__":
    main()
