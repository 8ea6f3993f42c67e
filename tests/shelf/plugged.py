"""Packages that plug into edgemtl, as pip leaves them in a folder of `sys.path`."""

from __future__ import annotations

from pathlib import Path


def install(folder: Path, group: str, entry: str, module: str | None = "") -> None:
    """Write a package with one entry point (`name = module:attribute`) of `group`, and the text of its module.

    The folder must stand on `sys.path`; a module of None is there already.
    """
    name, _, value = entry.partition(" = ")
    home = value.partition(":")[0]
    if module is not None:
        (folder / f"{home}.py").write_text(module)
    info = folder / f"{home}_{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {home}-{name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{entry}\n")
