"""edgemtl: from one multi-task data set and one device budget to a deployable, measured bundle.

What a person calls first stands here, and is imported when it is first used. The rest is public in its room:
`edgemtl.nas`, `edgemtl.export`, `edgemtl.profiling`, `edgemtl.runtime` and so on.

```python
from pathlib import Path
import edgemtl

run = Path("runs/first")
request = edgemtl.SearchRequest(run, budgets=("2GFLOPs",), floors=("depth=2%",))
result = edgemtl.search(request)
manifest = edgemtl.export_run(run, edgemtl.ExportRequest(("onnxruntime", "openvino")))
measured = edgemtl.profile(run / "bundle")
page = edgemtl.write_report(run)
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgemtl.version import __version__

if TYPE_CHECKING:
    from edgemtl.data import open_source
    from edgemtl.export import ExportRequest, export_bundle, export_run
    from edgemtl.nas.prune import PruneRequest, RunDesign, UserModule, prune
    from edgemtl.nas.search import SearchRequest, search
    from edgemtl.profiling import profile
    from edgemtl.report import write_report
    from edgemtl.runtime import Engine
    from edgemtl.spaces import load_space
    from edgemtl.train import Recipe, train_supernet

__all__ = [
    "Engine",
    "ExportRequest",
    "PruneRequest",
    "Recipe",
    "RunDesign",
    "SearchRequest",
    "UserModule",
    "__version__",
    "export_bundle",
    "export_run",
    "load_space",
    "open_source",
    "profile",
    "prune",
    "search",
    "train_supernet",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """Import the room of a name on its first use: what only measures or shows help never loads torch."""
    if name == "open_source":
        from edgemtl import data

        return getattr(data, name)
    if name in ("ExportRequest", "export_bundle", "export_run"):
        from edgemtl import export

        return getattr(export, name)
    if name in ("PruneRequest", "RunDesign", "UserModule", "prune"):
        from edgemtl.nas import prune

        return getattr(prune, name)
    if name in ("SearchRequest", "search"):
        from edgemtl.nas import search

        return getattr(search, name)
    if name == "profile":
        from edgemtl import profiling

        return getattr(profiling, name)
    if name == "write_report":
        from edgemtl import report

        return getattr(report, name)
    if name == "Engine":
        from edgemtl import runtime

        return getattr(runtime, name)
    if name == "load_space":
        from edgemtl import spaces

        return getattr(spaces, name)
    if name in ("Recipe", "train_supernet"):
        from edgemtl import train

        return getattr(train, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The offered names and the rooms that were imported."""
    return sorted({*globals(), *__all__})
