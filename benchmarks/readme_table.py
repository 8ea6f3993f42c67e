"""Write the tables of results: all rows into docs/results.md, those that decide into the README, a column a class.

What a step down in each choice costs goes into docs/spaces.md. The figures are those of the full runs in
`benchmarks/results/CLASS/`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

from edgemtl.files.disk import write_atomic

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
PAGE = ROOT / "docs" / "results.md"
SPACES_PAGE = ROOT / "docs" / "spaces.md"
PLACE = re.compile(r"(?<=<!-- results -->\n).*?(?=<!-- /results -->)", re.S)


class Deciding(NamedTuple):
    """A figure of the README: its row in the results, and how its raw figures give ours and the peer's, in `unit`."""

    title: str
    benchmark: str
    figure: str
    unit: str
    ours_and_peer: Callable[[Any], tuple[float, float]]


def _worst(raw: Any, runtime: str, ours: str, peer: Callable[[Any], float]) -> tuple[float, float]:
    """Ours and the peer's of the case on a runtime where ours is the largest multiple of it."""
    cases = [(case[ours], peer(case)) for name, case in raw.items() if name.startswith(f"{runtime}/")]
    return max(cases, key=lambda pair: pair[0] / pair[1])


def _best_uniform(case: Any) -> float:
    return min(case["uniform_ms"].values())  # type: ignore[no-any-return]


DECIDING = (
    Deciding(
        "INT8 net, ONNX Runtime; peer: the stock quantizer's",
        "against_int8",
        "onnxruntime_latency",
        "ms",
        lambda raw: tuple(raw["onnxruntime"]["median_ms"][name] for name in (raw["onnxruntime"]["chosen"], "stock")),
    ),
    Deciding(
        "searched precision, ONNX Runtime; peer: the best uniform one",
        "precision_floor",
        "worst_design_on_onnxruntime",
        "ms",
        lambda raw: _worst(raw, "onnxruntime", "searched_ms", _best_uniform),
    ),
    Deciding(
        "searched precision, OpenVINO; peer: the best uniform one",
        "precision_floor",
        "worst_design_on_openvino",
        "ms",
        lambda raw: _worst(raw, "openvino", "searched_ms", _best_uniform),
    ),
    Deciding(
        "one task of a bundle; peer: an engine of its own",
        "task_subset",
        "worst_task_on_onnxruntime",
        "ms",
        lambda raw: _worst(raw, "onnxruntime", "subset_ms", lambda case: case["alone_ms"]),
    ),
    Deciding(
        "memory of all tasks' engine; peer: an engine a task",
        "resident_memory",
        "onnxruntime",
        "MB",
        lambda raw: tuple(raw["onnxruntime"][name] / 1e6 for name in ("one_engine", "engine_per_task")),
    ),
    Deciding(
        "memory of five levels; peer: five bundles",
        "level_switch",
        "memory_of_bundles_over_levels",
        "MB",
        lambda raw: tuple(raw["onnxruntime"]["resident_bytes"][name] / 1e6 for name in ("levels", "bundles")),
    ),
    Deciding(
        "experts, exported; peer: all computed and masked",
        "moe_vs_masked",
        "onnxruntime_fp32",
        "ms",
        lambda raw: tuple(raw["onnxruntime_fp32"]["median_ms"][f"bounded_{name}"] for name in ("exported", "masked")),
    ),
    Deciding(
        "experts; peer: the dense ViT of equal FLOPs",
        "moe_vs_dense",
        "onnxruntime_fp32",
        "ms",
        lambda raw: tuple(raw["onnxruntime_fp32"]["median_ms"][name] for name in ("bounded", "dense")),
    ),
    Deciding(
        "delta_m of equally pruned nets; peer: group-Taylor",
        "prune_peers",
        "delta_m_ahead_of_best_peer",
        "%",
        lambda raw: tuple(100 * fmean(raw["delta_m"][name]) for name in ("ours", "taylor")),
    ),
    Deciding(
        "mIoU of the answer at 2 GFLOPs; peer: the largest net, of 4.2",
        "search_answer",
        "miou",
        "",
        lambda raw: tuple(raw[name]["semseg"]["miou"] for name in ("metrics", "largest")),
    ),
)
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


def deciding_table(runs_of: Runs) -> str:
    """The figures that decide, ours against the peer's, a column a class of processor that has any, for the README."""
    decide = {each.benchmark for each in DECIDING}
    runs_of = {name: of_class for name, of_class in runs_of.items() if decide & of_class.keys()}
    lines = _head(("what, and the peer", *runs_of, "at least", "aim"))
    for each in DECIDING:
        rows = {name: _rows(of_class, each.benchmark).get(each.figure) for name, of_class in runs_of.items()}
        pairs = {
            name: each.ours_and_peer(runs_of[name][each.benchmark]["raw"])
            for name, row in rows.items()
            if row is not None
        }
        shown = {
            name: f"{_figure(ours, each.unit)}, peer {_figure(peer, each.unit)}: "
            for name, (ours, peer) in pairs.items()
        }
        lines.append(_line((f"{each.title} (`{each.benchmark}`)",), rows, shown))
    return "\n".join(lines) + "\n"


def full_table(runs_of: Runs) -> str:
    """Every figure of every benchmark, and the machines that they were measured on."""
    lines = _head(("benchmark", "figure", *runs_of, "at least", "aim"))
    for benchmark in sorted({name for of_class in runs_of.values() for name in of_class}):
        of_class = {name: _rows(runs_of[name], benchmark) for name in runs_of}
        for figure in dict.fromkeys(figure for rows in of_class.values() for figure in rows):
            shown = (f"`{benchmark}`", figure.replace("_", " "))
            lines.append(_line(shown, {name: rows.get(figure) for name, rows in of_class.items()}))
    machines = "\n".join(f"- `{name}`: {text}" for name in runs_of for text in _machines(runs_of[name].values()))
    return "\n".join(lines) + f"\n\nMeasured on:\n\n{machines}\n"


def span_table(runs_of: Runs) -> str | None:
    """Cost of one step down from the largest design, by part and choice; None where no run of `space_span` is kept.

    Each is the mean of the tasks' changes in %, for a task's own choice that task's.
    """
    run = next((of_class["space_span"] for of_class in runs_of.values() if "space_span" in of_class), None)
    if run is None:
        return None
    steps: dict[str, dict[str, float]] = {}
    for name, by_option in run["raw"]["changes"].items():
        (part, choice), changes = name.split("."), [*by_option.values()][-1]  # of all smaller options the largest
        steps.setdefault(part, {})[choice] = 100 * (changes[part] if part in changes else fmean(changes.values()))
    titles = list(dict.fromkeys(choice for by_choice in steps.values() for choice in by_choice))
    cells = {part: [f"{by[title]:.1f}" if title in by else "" for title in titles] for part, by in steps.items()}
    lines = [*_head(("", *titles)), *(f"| `{part}` | {' | '.join(row)} |" for part, row in cells.items())]
    return "\n".join(lines) + "\n"


def _head(titles: Iterable[str]) -> list[str]:
    titles = list(titles)
    return [f"| {' | '.join(titles)} |", "|" + "---|" * len(titles)]


def _rows(of_class: Mapping[str, Mapping[str, Any]], benchmark: str) -> dict[str, Mapping[str, Any]]:
    return {row["name"]: row for row in of_class.get(benchmark, {}).get("rows", [])}


def _line(
    titles: tuple[str, ...], rows: Mapping[str, Mapping[str, Any] | None], before: Mapping[str, str] | None = None
) -> str:
    """One figure on each class, `before` it where given; the limits are the same on all."""
    limits = next((row for row in rows.values() if row is not None), {})
    wanted = ["" if limits.get(key) is None else f"{limits[key]:g}" for key in ("least", "aim")]
    cells = [*titles, *((before or {}).get(name, "") + _value(row) for name, row in rows.items()), *wanted]
    return f"| {' | '.join(cells)} |"


def _figure(value: float, unit: str) -> str:
    digits = f"{value:.0f}" if abs(value) >= 100 else f"{value:#.3g}"
    return f"{digits} {unit}".rstrip()


def _value(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    return f"{row['value']:.4g} {row['unit']}".rstrip() + (" (missed)" if row["holds"] is False else "")


def _machines(of_class: Iterable[Mapping[str, Any]]) -> list[str]:
    return sorted({_machine(run["environment"]) for run in of_class})


def _machine(environment: Mapping[str, Any]) -> str:
    cpu, packages = environment["cpu"], environment["packages"]
    versions = ", ".join(
        f"{name} {packages[name]}" for name in ("torch", "onnxruntime", "openvino") if packages.get(name)
    )
    return f"{cpu['model']}, {cpu['threads']} threads, {versions}"


def pages(runs_of: Runs) -> dict[Path, str | None]:
    """The pages that show results, each with its table."""
    return {README: deciding_table(runs_of), PAGE: full_table(runs_of), SPACES_PAGE: span_table(runs_of)}


def main() -> None:
    """Write the tables; one of which no run is kept stays as it is."""
    for page, table in pages(runs()).items():
        if table is not None:
            text = page.read_text(encoding="utf-8")
            write_atomic(page, PLACE.sub(lambda _, table=table: table, text))


if __name__ == "__main__":
    main()
