"""The hundred most used torch layers and functions as nets of two tasks (`_torch_nets.py`): how many export.

A net is exported as a user's own module is, and every mode of ONNX Runtime's engine is compared with PyTorch on an
image. One that is not exported must be refused in one line that names the operator or its line of code. A run that was
stopped goes on with the layers that are left, as long as commit and versions are the same.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from _common import Outcome, Row, main, say
from _torch_nets import LAYERS
from PIL import Image

from edgemtl.environment import environment
from edgemtl.errors import UserError
from edgemtl.export import ExportRequest, export_own_net
from edgemtl.files.disk import write_json
from edgemtl.own import open_net, propose_tasks

LEAST, AIM = 95, 100
SIZE = (32, 32)
_NAMED = re.compile(r"operator [\w.:]+|\([\w]+\.py, line \d+\)|cannot be taken: \w+")
"""The operator, or the line of code, in a refusal."""


def attempt(name: str, photo: Path) -> dict[str, Any]:
    """ "exported", or why a layer is not, and whether the reason names it."""
    with tempfile.TemporaryDirectory() as scratch:
        try:
            net = open_net(f"_torch_nets:{name}", SIZE)
            export_own_net(net, propose_tasks(net), ExportRequest("onnxruntime"), Path(scratch) / "bundle", [photo])
        except UserError as error:
            return {"why": str(error), "by_name": bool(_NAMED.search(str(error)))}
        except Exception as error:  # a fault of ours: counted as refused without a name
            return {"why": f"{type(error).__name__}: {error}"[:500], "by_name": False}
    return {"why": "", "by_name": True}


def rows_of(results: Mapping[str, Mapping[str, Any]], quick: bool) -> list[Row]:
    """Rows of what every layer came to; quick: all of the few must export."""
    exported = [name for name, each in results.items() if not each["why"]]
    nameless = [name for name, each in results.items() if not each["by_name"]]
    least, aim = (len(results), None) if quick else (LEAST, AIM)
    return [
        Row("layers", len(results), "layers"),
        Row("exported", len(exported), "layers", least, aim, lower_is_better=False),
        Row("refused_without_a_name", len(nameless), "layers", 0),
    ]


def run(options: argparse.Namespace) -> Outcome:
    """Export every layer; quick: every tenth."""
    here = environment()
    key = {part: here[part] for part in ("edgemtl", "python", "packages", "git_commit")}
    earlier = json.loads(options.done.read_text(encoding="utf-8")) if options.done.exists() else {}
    results = dict(earlier["results"]) if earlier.get("key") == key else {}
    names = list(LAYERS)[:: 10 if options.quick else 1]
    options.done.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        photo = Path(scratch) / "photo.png"
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)).save(photo)
        for number, name in enumerate(names, 1):
            if name not in results:
                results[name] = attempt(name, photo)
                write_json(options.done, {"key": key, "results": results})
            say(f"{number} of {len(names)}: {name} {results[name]['why'] or 'exported'}")
    options.done.unlink()
    results = {name: results[name] for name in names}
    return Outcome(rows_of(results, options.quick), {"layers": results})


def add(parser: argparse.ArgumentParser) -> None:
    """The benchmark's own option."""
    default = Path(__file__).resolve().parent.parent / "build" / "exporter_coverage.json"
    parser.add_argument("--done", type=Path, default=default, help="file of what a run that was stopped has done")


if __name__ == "__main__":
    main(run, __doc__, add)
