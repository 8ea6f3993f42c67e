from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import click
import numpy as np
import pytest
from PIL import Image

from edgemtl.cli import app as _main

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
SET_UP = ("pip install ", "python3 -m venv ", ". ", "source ", "git ", "pre-commit ", "cd ", "export ", "#")
"""What makes an environment: `.ci/run` and `tests/test_packaging.py` run these for real."""
CHECKS = {
    "python -m pytest -q -n 2",
    "python -m ruff check",
    "python -m ruff format --check",
    "python -m mypy",
    "lint-imports",
    "python docs/api.py",
}
"""What `.ci/run` runs."""
SMALLER = {
    "train": ["--steps", "2", "--batch", "2", "--images", "8", "--sizes", "1", "--size", "64x64"],
    "train --run": ["--steps", "2", "--batch", "2"],
    "train --data streets": ["--steps", "2", "--batch", "2", "--sizes", "1", "--size", "64x64"],
    "search --from": [],
    "search heads:build": [],
    "search": ["--evaluations", "4", "--finetune", "2"],
    "search --strategy masks": ["--evaluations", "4", "--steps", "2", "--finetune", "2"],
    "profile": ["--runs", "20"],
}
"""Flags that make a documented command short; the rest of it stays as it is written."""


def blocks(page: Path) -> list[str]:
    return re.findall(r"^```(?:sh|bash|console|shell)\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def commands(text: str) -> Iterator[str]:
    for line in text.replace("\\\n", " ").splitlines():
        if line.strip():
            yield line.strip().removeprefix("$ ")


def documented() -> list[tuple[str, str]]:
    return [(page.name, line) for page in PAGES for block in blocks(page) for line in commands(block)]


def epilogs() -> list[tuple[str, str]]:
    """Examples in the help of every verb."""
    verbs = [_main._edgemtl, *_main._edgemtl.commands.values()]
    verbs += [verb for group in verbs[1:] if isinstance(group, click.Group) for verb in group.commands.values()]
    return [
        (f"{verb.name} --help", line.strip())
        for verb in verbs
        for line in (verb.epilog or "").splitlines()
        if line.startswith("  ")
    ]


def parse(line: str) -> None:
    """Parse a command as the verb would, without running it; raises `click.UsageError`."""
    words = shlex.split(line.partition(" > ")[0], comments=True)[1:]
    if words in (["--help"], ["--version"]):
        return
    verb, words = _main._edgemtl.commands[words[0]], words[1:]
    if isinstance(verb, click.Group):
        verb, words = verb.commands[words[0]], words[1:]
    rest = [word for word in words if word != "--help"]
    verb.make_context(verb.name, rest, resilient_parsing="--help" in words)


def test_start_has_the_two_blocks_that_ci_and_new_users_run() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    start = re.split(r"^## ", readme.split("\n## Start\n", 1)[1], maxsplit=1, flags=re.M)[0]
    first, second = re.findall(r"^```sh\n(.*?)^```", start, flags=re.M | re.S)
    verbs = [shlex.split(line)[1] for line in commands(first) if line.startswith("edgemtl ")]
    assert verbs == ["search", "export", "profile", "report"]
    assert "-e '.[test]'" in second and second.strip().splitlines()[-1].startswith("python -m pytest")


@pytest.mark.parametrize(("where", "line"), [*documented(), *epilogs()])
def test_every_documented_command_is_one(where: str, line: str) -> None:
    if line.startswith("edgemtl "):
        parse(line)
    elif line.startswith("python benchmarks/"):
        assert (ROOT / line.split()[1]).is_file()
    else:
        assert line.startswith(SET_UP) or line in CHECKS, f"nothing runs this command of {where}"


@pytest.mark.parametrize(
    "line", ["edgemtl serch", "edgemtl search --bugdet 1ms", "edgemtl profile", "edgemtl run bundle"]
)
def test_a_command_that_is_none_is_found(line: str) -> None:
    with pytest.raises((click.UsageError, KeyError)):
        parse(line)


def test_ci_and_pre_commit_run_the_same_checks() -> None:
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    hooks = re.findall(r"entry: (.+)", (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    assert len(hooks) == 4
    assert all(f" {hook}\n" in script for hook in hooks)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"[a-z]+:", link)]
    for link in links:
        file, _, heading = unquote(link).partition("#")
        target = page.parent / file if file else page
        assert target.exists(), f"{page.name} links to {link}"
        if heading:
            assert heading in headings(target), f"{page.name} links to {link}"


def headings(page: Path) -> set[str]:
    """Anchors of a page, by the rule that forges use."""
    titles = re.findall(r"^#+ +(.+)$", page.read_text(encoding="utf-8"), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def lay_streets(folder: Path) -> None:
    """The data set of one's own that the pages call streets."""
    rng = np.random.default_rng(0)
    for split in ("train", "validation", "test"):
        for index in range(2):
            for kind in ("images", "labels"):
                (folder / kind / split).mkdir(parents=True, exist_ok=True)
            photo = rng.integers(0, 256, (32, 32, 3), np.uint8)
            Image.fromarray(photo).save(folder / "images" / split / f"{index}.png")
            Image.fromarray(photo[..., 0] % 2).save(folder / "labels" / split / f"{index}.png")
    images = ", ".join(f"{split}: images/{split}" for split in ("train", "validation", "test"))
    task = 'semseg: {kind: segmentation, files: "labels/{split}/{name}.png", classes: [road, car]}'
    (folder / "data.yaml").write_text(f"images: {{{images}}}\ntasks:\n  {task}\n")


ROOMS = """images: {train: images/train, validation: images/validation, test: images/test}
tasks:
  parsing: {kind: segmentation, files: "labels/{name}.png", classes: [floor, wall, door, window, other]}
  points: {kind: regression, csv: points.csv, image: file, columns: [top, left, bottom, right]}
"""
LABELLED = """tasks:
  parsing: {kind: segmentation, outputs: [parsing]}
  points: {kind: regression, outputs: [points]}
"""


def lay_heads(folder: Path) -> None:
    """The module of one's own that the page about them takes, photos for it, and rooms with labels of its tasks."""
    page = (ROOT / "docs" / "own-net.md").read_text(encoding="utf-8")
    (folder / "heads.py").write_text(re.findall(r"^```python\n(.*?)^```", page, flags=re.M | re.S)[0])
    (folder / "labelled.yaml").write_text(LABELLED)
    (folder / "photos").mkdir()
    (folder / "rooms/labels").mkdir(parents=True)
    (folder / "rooms/data.yaml").write_text(ROOMS)
    points = ["file,top,left,bottom,right"]
    for number in range(9):
        values = np.random.default_rng(number).integers(0, 256, (32, 48, 3), np.uint8)
        images = folder / "rooms/images" / ("train", "validation", "test")[number % 3]
        images.mkdir(parents=True, exist_ok=True)
        for where in (folder / "photos", images):
            Image.fromarray(values).save(where / f"{number}.png")
        Image.fromarray(values[..., 0] % 5).save(folder / f"rooms/labels/{number}.png")
        points.append(f"{number}.png,{number},2,{number + 20},30")
    (folder / "rooms/points.csv").write_text("\n".join(points) + "\n")


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_documented_commands_run(page: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    lay_streets(tmp_path / "streets")
    lay_heads(tmp_path)
    for block in blocks(page):
        for line in commands(block):
            if not line.startswith("edgemtl "):
                continue
            line, _, written = line.partition(" > ")
            words = shlex.split(line)[1:]
            kind = next((kind for kind in SMALLER if " " in kind and " ".join(words).startswith(kind)), words[0])
            command = [sys.executable, "-m", "edgemtl", *words, *SMALLER.get(kind, [])]
            again = "--out" in words and (tmp_path / words[words.index("--out") + 1]).exists()
            done = subprocess.run(
                [*command, *(["--resume"] if again else [])],
                cwd=tmp_path,
                env=environment,
                text=True,
                capture_output=True,
                check=False,
            )
            assert done.returncode == 0, f"{line}\n{done.stderr}"
            if written:
                (tmp_path / written).write_text(done.stdout)
