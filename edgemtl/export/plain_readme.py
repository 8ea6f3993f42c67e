"""The README of plain files: their inputs, their outputs, and how to open them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from edgemtl.arithmetic import NEEDS
from edgemtl.bundle import BundleInput, BundleTarget, BundleTask, Manifest
from edgemtl.errors import UserError
from edgemtl.files.disk import read_text, write_atomic

__all__ = ["README_FILE", "readme", "write_readme"]

README_FILE = "README.md"
_LIMIT_BYTES = 2**20
_MARK = "<!-- Written by edgemtl; SHA-256 of what stands above: "


def write_readme(folder: Path, manifest: Manifest) -> bool:
    """Write the page into a plain layout's folder, unless what is there is not a page as edgemtl wrote it: False then.

    The page tells by itself that nobody changed it, so one of any earlier manifest is known, and replaced.
    """
    page = folder / README_FILE
    if page.is_symlink() or (page.exists() and not _is_own(page)):
        return False
    write_atomic(page, readme(manifest))
    return True


def _is_own(page: Path) -> bool:
    try:
        content = read_text(page, "page", _LIMIT_BYTES)
    except UserError:  # a pipe, a folder, or a file too large to be one of ours
        return False
    text, mark, _ = content.rpartition(_MARK)
    return bool(mark) and content == _sealed(text)


def _sealed(text: str) -> str:
    return f"{text}{_MARK}{hashlib.sha256(text.encode()).hexdigest()} -->\n"


def readme(manifest: Manifest) -> str:
    """The page for a plain layout, in Markdown: what `manifest.json` says to programs, with a seal at its end."""
    tasks = ", ".join(task.name for task in manifest.tasks)
    outputs = [
        (f"`{output.tensor}`", f"{output.dtype} {_shape(output.shape or ())}", output.unit, _step(task), task.result)
        for task in manifest.tasks
        for output in task.outputs
    ]
    files = [
        (f"`{target.folder}/{target.files[0]}`", name, _options(target), _processors(target))
        for name, target in manifest.targets.items()
    ]
    lines = (
        f"# {manifest.name}: {tasks}",
        "",
        "Written by edgemtl for use without it: one input, the outputs of each task, all shapes fixed. `manifest.json`",
        "says the same for programs, with the names of classes, the hash of every file, and how far each is from",
        "the trained net.",
        "",
        "## Input",
        "",
        *_input(manifest.input),
        "",
        "## Outputs",
        "",
        *_table(("output", "type", "holds", "what to do", "which gives"), outputs),
        "",
        "## Files",
        "",
        *_table(("file", "opened by", "with the options", "right on"), files),
        "",
        "",
    )
    return _sealed("\n".join(lines))


def _input(image: BundleInput) -> Sequence[str]:
    size = f"{image.height}, {image.width}"
    shape = f"(1, 3, {size})" if image.layout == "NCHW" else f"(1, {size}, 3)"
    lines = [
        f"`{image.name}`: {image.dtype} {shape}, {image.layout}, {image.colour}. Resize a picture to {image.width} x",
        f"{image.height} pixels (width x height), whatever its aspect ratio: averaged over areas where neither side",
        f"grows (`BOX` in Pillow), otherwise {image.enlarging}.",
    ]
    if image.dtype == "uint8":
        return [*lines, "Values are its pixels, 0 to 255: they are normalised inside."]
    mean, std = (", ".join(f"{value:g}" for value in values) for values in (image.mean, image.std))
    return [*lines, f"Values are `(pixel / {image.scale:g} - mean) / std`, mean ({mean}), std ({std}) for R, G and B."]


def _step(task: BundleTask) -> str:
    return "nothing" if task.postprocess == "none" else task.formula


def _options(target: BundleTarget) -> str:
    return ", ".join(f"`{key}={value}`" for key, value in target.options.items())


def _processors(target: BundleTarget) -> str:
    """Where an engine computes what it should, which no runtime checks."""
    if target.hardware:
        return target.hardware
    return " and ".join(f"processors with {NEEDS[need][1]}" for need in target.needs) or "every processor"


def _shape(sizes: Sequence[int]) -> str:
    return f"({', '.join(map(str, sizes))}{',' if len(sizes) == 1 else ''})"


def _table(columns: Sequence[str], rows: Iterable[Sequence[str | None]]) -> Sequence[str]:
    lines = [columns, ["---"] * len(columns), *rows]
    return [f"| {' | '.join(cell or '' for cell in line)} |" for line in lines]
