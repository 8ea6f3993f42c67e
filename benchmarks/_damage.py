"""Damage to a file, by accident or on purpose: one change at a time, drawn from a seed."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Damage = Callable[[Path, random.Random], None]

HOLE_BYTES = 2**30
HOSTILE_TEXTS = (
    "", "\0", "a\nb", "\x1b[2J\x1b]0;x\x07", "\u202etxt", "../../etc/passwd", "/etc/passwd", "..", "x" * 100_000,
    "[red]x[/red]", "<script>alert(1)</script>", "ö" * 300, "\ud800", "nan", "1e999", "0x10", "{}", "C:\\x", "%s%n",
    "a/b",
)  # fmt: skip
EXTREMES = (0, -1, 1, 2**31, 2**63, 2**64, 10**30, 0.5, -0.0, 1e300, 5e-324, True, False, None)
WRITTEN = (
    "NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "-" + "9" * 120, '"' + "a" * 10**6 + '"', "[" * 100_000,
    '{"a":' * 50_000, "[" + "1," * 200_000 + "1]", "01", "0x10", "'a'", "2024-02-31",
    "!!python/object/apply:os.getcwd []",
)  # fmt: skip
"""Replacements of a value that no writer of ours would write."""


# Bytes


def flip_bits(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    for _ in range(rng.choice((1, 1, 1, 8))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def cut_off(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: rng.choice((0, 1, len(content) // 2, len(content) - 1, rng.randrange(len(content))))])


def append(path: Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes() + rng.choice((b"\0", b"\n{}", b"x" * 5000, path.read_bytes())))


def overwrite(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    start = rng.randrange(len(content))
    count = min(len(content) - start, rng.choice((1, 16, 300)))
    content[start : start + count] = rng.choice((bytes(count), b"\xff" * count, rng.randbytes(count)))
    path.write_bytes(content)


def repeat(path: Path, rng: random.Random) -> None:
    content = path.read_bytes()
    start = rng.randrange(len(content))
    path.write_bytes(content[:start] + content[start : start + rng.choice((1, 40, 400))] * 3 + content[start:])


# The file itself


def as_pipe(path: Path, rng: random.Random) -> None:
    path.unlink()
    os.mkfifo(path)


def as_socket(path: Path, rng: random.Random) -> None:
    path.unlink()
    here = Path.cwd()
    os.chdir(path.parent)  # a socket's path is 108 bytes at most
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


def as_folder(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.mkdir()


def as_device(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(rng.choice(("/dev/zero", "/dev/full", "/dev/tty", "/proc/self/mem")))


def as_link_outside(path: Path, rng: random.Random) -> None:
    """The file itself, whole, but elsewhere."""
    outside = Path(os.environ["EDGEMTL_OUTSIDE"]) / f"{rng.random()}{path.suffix}"
    shutil.move(path, outside)
    path.symlink_to(outside)


def as_loop(path: Path, rng: random.Random) -> None:
    path.unlink()
    path.symlink_to(path.name)


def as_hole(path: Path, rng: random.Random) -> None:
    """A gigabyte that takes no room on the disk."""
    with path.open("r+b") as file:
        file.truncate(HOLE_BYTES)


# Documents


def change_value(path: Path, rng: random.Random) -> None:
    """One value of a document becomes another kind of value, goes, or comes twice."""
    text = path.read_text()
    document = _load(path, text)
    positions = list(_positions(document))
    parent, key = rng.choice(positions)
    change = rng.randrange(6)
    if change == 0:
        parent[key] = rng.choice(HOSTILE_TEXTS)
    elif change == 1:
        parent[key] = rng.choice(EXTREMES)
    elif change == 2:
        del parent[key]
    elif change == 3:
        parent[key] = rng.choice(([], {}, [parent[key]], {"a": parent[key]}, [parent[key]] * 400))
    elif change == 4 and isinstance(parent, dict):
        parent[rng.choice(HOSTILE_TEXTS)] = parent.pop(key)
    else:
        parent[key] = str(parent[key]) if not isinstance(parent[key], str) else len(parent[key])
    _store(path, document)


def write_value(path: Path, rng: random.Random) -> None:
    """One value of a document is written as no writer of ours would."""
    document = _load(path, path.read_text())
    parent, key = rng.choice(list(_positions(document)))
    parent[key] = "@@HERE@@"
    _store(path, document)
    text, written = path.read_text(), rng.choice(WRITTEN)
    path.write_text(text.replace('"@@HERE@@"', written).replace("'@@HERE@@'", written).replace("@@HERE@@", written))


def double_key(path: Path, rng: random.Random) -> None:
    """A key that is there comes again, with another value."""
    lines = path.read_text().splitlines()
    keyed = [number for number, line in enumerate(lines) if line.strip().split(":")[0].strip('" ') and ":" in line]
    if not keyed:
        return flip_bits(path, rng)
    number = rng.choice(keyed)
    key = lines[number].partition(":")[0]
    end = "," if path.suffix == ".json" else ""
    lines.insert(number, f"{key}: {rng.choice(('0', 'null', '[]'))}{end}")
    path.write_text("\n".join(lines))
    return None


def alias_bomb(path: Path, rng: random.Random) -> None:
    levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    lines = path.read_text().splitlines()
    keyed = [number for number, line in enumerate(lines) if line.rstrip().endswith(":")] or [0]
    position = rng.choice(keyed)
    lines[position] = lines[position].split(":")[0] + ": *a11" if rng.random() < 0.7 else lines[position]
    path.write_text("\n".join(["a0: &a0 [x, x, x, x, x, x]", *levels, *lines]))


def _load(path: Path, text: str) -> Any:
    if path.suffix == ".json":
        return json.loads(text)
    import yaml

    return yaml.safe_load(text)


def _store(path: Path, document: Any) -> None:
    if path.suffix == ".json":
        path.write_text(json.dumps(document, indent=2))
        return
    import yaml

    path.write_text(yaml.safe_dump(document, sort_keys=False, allow_unicode=False), errors="surrogatepass")


def _positions(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a value in a document, as its parent and its key there."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    for key in keys:
        yield value, key
        yield from _positions(value[key])


BYTES: tuple[Damage, ...] = (flip_bits, flip_bits, flip_bits, cut_off, append, overwrite, repeat)
PLACES: tuple[Damage, ...] = (as_pipe, as_socket, as_folder, as_device, as_link_outside, as_loop, as_hole)
JSON: tuple[Damage, ...] = (change_value, change_value, change_value, write_value, write_value, double_key)
YAML: tuple[Damage, ...] = (*JSON, alias_bomb)


def damages(path: Path) -> tuple[Damage, ...]:
    """Changes of a file, by its ending: half of it to what is written, the rest to bytes and to the file."""
    if path.suffix in (".json", ".yaml"):
        written = JSON if path.suffix == ".json" else YAML
        return (*written, *written, *BYTES, *PLACES)
    return (*BYTES, *BYTES, *PLACES)
