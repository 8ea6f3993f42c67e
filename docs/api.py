"""Build the API pages, one for each room and each module of the ground floor: `python docs/api.py`, into build/api.

pdoc (https://pdoc.dev) makes them from docstrings. Whatever it warns of is an error: a name in `__all__` that does not
exist, an annotation that does not resolve.
"""

from __future__ import annotations

import importlib
import pkgutil
import warnings
from pathlib import Path
from types import ModuleType

import pdoc

import edgemtl

OUT = Path(__file__).parents[1] / "build/api"
COMMAND_LINE = ("edgemtl.__main__", "edgemtl.cli")


def is_room(module: ModuleType) -> bool:
    """Whether a module is a package that offers something, and that no page of a package above it shows."""
    above = importlib.import_module(module.__name__.rpartition(".")[0])
    return hasattr(module, "__path__") and hasattr(module, "__all__") and hasattr(above, "__all__")


def main() -> None:
    """Write the pages; a room's page shows what its `__init__` offers, in whichever module that stands."""
    names = ["edgemtl", *(module.name for module in pkgutil.walk_packages(edgemtl.__path__, "edgemtl."))]
    modules = [importlib.import_module(name) for name in names if not name.startswith(COMMAND_LINE)]
    for module in modules:  # pdoc does not see what a room loads on first use
        vars(module).update({name: getattr(module, name) for name in getattr(module, "__all__", ())})
    pages = [module.__name__ for module in modules if module.__name__.count(".") < 2 or is_room(module)]
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module=r"pdoc\.")
        pdoc.render.configure(docformat="markdown", show_source=False)
        pdoc.pdoc(*pages, output_directory=OUT)


if __name__ == "__main__":
    main()
