"""The common part of every benchmark: its flags, its rows, its environment, and where full results are kept."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from edgemtl.environment import environment
from edgemtl.files.disk import write_json

RESULTS = Path(__file__).parent / "results"
"""A folder for each class of processor: figures of one say little about another."""


@dataclass(frozen=True)
class Row:
    """One measured figure against what is asked of it.

    `least` and `aim` are limits in `unit`; `lower_is_better` says on which side of them the figure must lie.
    """

    name: str
    value: float
    unit: str
    least: float | None = None
    aim: float | None = None
    lower_is_better: bool = True

    @property
    def holds(self) -> bool | None:
        """Whether the figure keeps its least requirement (None: there is none)."""
        if self.least is None:
            return None
        return bool(self.value <= self.least if self.lower_is_better else self.value >= self.least)


@dataclass(frozen=True)
class Outcome:
    """Rows of one benchmark with the raw figures behind them (JSON values)."""

    rows: list[Row]
    raw: Mapping[str, Any] = field(default_factory=dict)


def main(
    benchmark: Callable[[argparse.Namespace], Outcome],
    doc: str,
    add: Callable[[argparse.ArgumentParser], None] = lambda p: None,
) -> None:
    """Parse flags, run, print the rows, keep a full run in `benchmarks/results/CLASS/`; exit 1 where a row fails."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--format", choices=("table", "json"), default="table")
    parser.add_argument("--quick", action="store_true", help="less work, the same direction, under 5 minutes")
    add(parser)
    options = parser.parse_args()
    started = time.monotonic()
    with redirect_stdout(sys.stderr):  # libraries print there too, and with json stdout is the result's alone
        outcome = benchmark(options)
    name = Path(sys.argv[0]).stem
    content: dict[str, Any] = {
        "benchmark": name,
        "quick": options.quick,
        "options": _given(options),
        "rows": [{**_shown(row), "holds": row.holds} for row in outcome.rows],
        "seconds": round(time.monotonic() - started, 1),
        "environment": environment(),
        "raw": dict(outcome.raw),
    }
    if not options.quick:
        folder = RESULTS / content["environment"]["cpu"]["class"]
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{name}.json", content)
    print(json.dumps(content, indent=2) if options.format == "json" else _table(content))
    sys.exit(0 if all(row.holds is not False for row in outcome.rows) else 1)


def say(text: str) -> None:
    """A line about progress, on stderr."""
    print(text, file=sys.stderr, flush=True)


def _given(options: argparse.Namespace) -> dict[str, Any]:
    """The benchmark's own options, as JSON values: a run that was made smaller by them says so. A path is a name."""
    own = {
        name: value for name, value in vars(options).items() if name not in ("format", "quick") and value is not None
    }
    return {name: value.name if isinstance(value, Path) else value for name, value in own.items()}


def _shown(row: Row) -> dict[str, Any]:
    return {key: value for key, value in asdict(row).items() if key != "lower_is_better"}


def _table(content: Mapping[str, Any]) -> str:
    lines = [f"{content['benchmark']}: {content['seconds']} s"]
    for row in content["rows"]:
        limits = ", ".join(f"{key} {row[key]:g}" for key in ("least", "aim") if row[key] is not None)
        verdict = {True: "holds", False: "FAILS", None: ""}[row["holds"]]
        lines.append(f"  {row['name']:<44} {row['value']:>10.4g} {row['unit']:<12} {limits:<22} {verdict}")
    if not content["rows"]:
        lines.append(f"  not measured: {content['raw'].get('reason', 'no reason given')}")
    return "\n".join(lines)
