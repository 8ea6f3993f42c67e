"""Products of real files, as `edgemtl profile` counts them and by running.

The files are all of ONNX's own backend tests, and the nets of `own_nets_in`, which are downloaded once, to `--nets`. A
file runs if ONNX Runtime opens it and runs it on inputs that are made up, as for a profile. Its products are counted
once more while it runs, by code that shares nothing with the package. `uncounted` are files of which a profile says, by
name, that an operator cannot be counted.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx
from _common import Outcome, Row, main, say
from _own_nets import NETS, fetch
from _products import by_onnxruntime, by_reference
from onnx.backend.test.loader import load_model_tests

from edgemtl.errors import UserError
from edgemtl.profiling import count_graph
from edgemtl.profiling.inputs import InputChoice, declared_in, made_up, settle_inputs
from edgemtl.profiling.subjects import open_subject

TRANSFORMS = ("DFT", "STFT")
"""Operators whose products depend on the algorithm: a profile names them instead of counting."""


def files(scratch: Path, nets: Path, quick: bool) -> Iterator[Path]:
    """The files of the tests, those of single nodes written to `scratch`, and the nets in `nets`; quick: some tests."""
    warnings.simplefilter("ignore")  # of NumPy, as the tests' expected outputs are computed
    cases = load_model_tests(kind="node")
    for case in cases[:: 10 if quick else 1]:
        path = scratch / f"{case.name}.onnx"
        onnx.save(case.model, path)
        yield path
    data = Path(onnx.__file__).parent / "backend" / "test" / "data"
    yield from sorted(data.glob("*/*/model.onnx"))
    yield from [] if quick else sorted((data / "light").glob("*.onnx"))
    yield from [] if quick else (fetch(name, nets) for name in NETS)


def ran(path: Path) -> tuple[InputChoice, int] | None:
    """Inputs that a file runs on and its products, counted by running; None if it does not run."""
    model = onnx.load(path)
    try:
        subject = open_subject(path, threads=1)
        subject.settle()
    except UserError:
        return None
    choice = subject.choice
    subject.close()
    feeds = _feeds(model, choice)
    if path.parent.name == "light" or path.stem in NETS:  # too large for the evaluator
        return choice, by_onnxruntime(model, feeds)
    try:
        return choice, by_reference(model, feeds)
    except Exception:  # the evaluator's own kinds, where it lacks an operator or a type
        return choice, by_onnxruntime(model, feeds)


def _feeds(model: onnx.ModelProto, choice: InputChoice) -> dict[str, Any]:
    inputs = settle_inputs(declared_in(model.graph), choice.shapes, "the file")
    return made_up(inputs, choice.integers, "the file")


def compare(path: Path) -> dict[str, Any] | None:
    """Both counts of a file that runs, and why a profile has none."""
    try:
        found = ran(path)
    except Exception as error:  # counted by neither: shown, and a failure of this benchmark
        return {"by_running": None, "why": str(error)[:200]}
    if found is None:
        return None
    choice, macs = found
    cost = count_graph(path, choice=choice)
    return {
        "by_running": macs,
        "counted": cost.total.flops // 2 if cost.total.exact else None,
        **({} if cost.total.exact else {"why": " ".join(cost.notes)}),
    }


def run(options: argparse.Namespace) -> Outcome:
    """Count every file twice."""
    counts: dict[str, Mapping[str, Any]] = {}
    seen = 0
    with tempfile.TemporaryDirectory() as scratch:
        for path in files(Path(scratch), options.nets, options.quick):
            seen += 1
            if seen % 200 == 0:
                say(f"{seen} files")
            if (counted := compare(path)) is not None:
                counts[path.parent.name if path.name == "model.onnx" else path.stem] = counted
    products = {name: each for name, each in counts.items() if each["by_running"] != 0}
    uncounted = {name: each for name, each in counts.items() if each.get("counted") is None}
    transforms = [name for name, each in uncounted.items() if each["why"].startswith(TRANSFORMS)]
    different = [name for name, each in counts.items() if each.get("counted") not in (None, each["by_running"])]
    rows = [
        Row("files", seen, "files"),
        Row("run", len(counts), "files"),
        Row("have_products", len(products), "files"),
        Row("nets", sum(name in NETS for name in products), "files"),
        Row("counted_otherwise", len(different), "files", 0),
        Row("uncounted", len(uncounted) - len(transforms), "files", 0),
        Row("uncounted_transforms", len(transforms), "files"),
    ]
    shown = {name: each for name, each in counts.items() if name in products or name in uncounted or name in different}
    return Outcome(rows, {"different": different, "uncounted": uncounted, "counts": shown})


def add(parser: argparse.ArgumentParser) -> None:
    """The benchmark's own option."""
    default = Path(__file__).resolve().parent.parent / "build" / "own_nets"
    parser.add_argument("--nets", type=Path, default=default, help="folder of downloaded nets")


if __name__ == "__main__":
    main(run, __doc__, add)
