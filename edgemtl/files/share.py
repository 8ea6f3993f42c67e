"""Where the folders that a user edits are found: `nas/`, `export/` and `profiles/`.

A user's own folder of that name in the working directory comes first, then the files that ship with the package: under
`edgemtl/share/` in a wheel, at the root of the checkout otherwise.
"""

from __future__ import annotations

from pathlib import Path

from edgemtl.files.paths import inside

__all__ = ["find_shared", "is_shipped", "list_shared"]

_PACKAGE = Path(__file__).resolve().parents[1]


def _roots(folder: str) -> list[Path]:
    return [Path.cwd() / folder, _shipped(folder)]


def _shipped(folder: str) -> Path:
    shipped = _PACKAGE / "share" / folder
    return shipped if shipped.is_dir() else _PACKAGE.parent / folder


def is_shipped(path: Path) -> bool:
    """Whether a file that `find_shared` gave came with the package, and is not the user's own."""
    return path.parent.resolve() == _shipped(path.parent.name).resolve()


def find_shared(folder: str, name: str) -> Path | None:
    """The file `folder/name`, a user's own before the shipped one; none where neither exists.

    Raises `UserError` where the name, or a link, leads out of the folder.
    """
    root = next((root for root in _roots(folder) if (root / name).is_file()), None)
    return None if root is None else inside(root, name, "folder")


def list_shared(folder: str, suffix: str = ".yaml") -> list[str]:
    """Names (without the suffix) of every file in `folder`, the user's and the shipped ones."""
    return sorted(
        {path.stem for root in _roots(folder) if root.is_dir() for path in root.glob(f"*{suffix}") if path.is_file()}
    )
