"""Placing engines in a bundle's folder: a new bundle atomically, more engines next to the existing ones.

What is added to a bundle becomes part of it at one moment, when its manifest is replaced. Until then a reader sees the
bundle as it was, and so it stays where the export is stopped: folders of engines that are on their way in or out carry
a list of their files, by which the next export removes what no manifest names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from edgemtl.bundle import MANIFEST_FILE, BundleExperts, BundleTarget, Manifest, read_manifest, write_manifest
from edgemtl.errors import UserError
from edgemtl.files.claim import remove_written, scratch_beside
from edgemtl.files.disk import read_json, write_json
from edgemtl.files.names import check_name
from edgemtl.models import MultiTaskNet
from edgemtl.signals import deferred

__all__ = ["Place", "net_sha256", "placing"]

MOVING_FILE = ".edgemtl.moving.json"


@dataclass(frozen=True)
class Place:
    """Where a bundle is made (`scratch`), where it goes, and the bundle that is there already (None: there is none)."""

    folder: Path
    scratch: Path
    before: Manifest | None

    def check(self, digest: str, targets: Iterable[str], levels: int = 0, layout: str = "bundle") -> None:
        """`UserError` where the bundle that is there holds another net than that of `digest`, or cannot be added to."""
        if self.before is None:
            return
        remedy = "choose another --out, or move that bundle away"
        if self.before.layout != layout:
            raise UserError(f"{self.folder} holds a bundle of the layout {self.before.layout}, not {layout}: {remedy}")
        if self.before.provenance.net_sha256 != digest or len(self.before.levels) != levels:
            raise UserError(f"bundle {self.folder} holds another net (design, precision or weights differ): {remedy}")
        if levels and {*targets} != {*self.before.targets}:
            raise UserError(f"bundle {self.folder} holds levels for {', '.join(self.before.targets)} alone: {remedy}")

    def publish(self, manifest: Manifest, write_more: Callable[[Path, Manifest], object] | None = None) -> Manifest:
        """Move the files that `manifest` lists from the scratch folder into place; returns the bundle's manifest.

        `write_more` is given the folder that holds this one, to write what else follows from it.
        """
        write_more = write_more or (lambda folder, manifest: None)
        with deferred():
            return self._publish(manifest, write_more)

    def _publish(self, manifest: Manifest, write_more: Callable[[Path, Manifest], object]) -> Manifest:
        if self.before is None:
            write_manifest(self.scratch, manifest)
            write_more(self.scratch, manifest)
            self.scratch.chmod(0o755)
            self.scratch.replace(self.folder)
            return manifest
        whole, moves = _joined(self.before, manifest, self.folder)
        for name, destination in moves.items():
            target = next(target for target in manifest.targets.values() if target.folder == name)
            write_json(self.scratch / name / MOVING_FILE, _files_of(manifest, target))
            (self.folder / destination).parent.mkdir(parents=True, exist_ok=True)
            (self.scratch / name).replace(self.folder / destination)
        folders = {target.folder for target in whole.targets.values()}
        for target in self.before.targets.values():
            if target.folder not in folders:
                write_json(self.folder / target.folder / MOVING_FILE, _files_of(self.before, target))
        write_manifest(self.folder, whole)
        _settle(self.folder, whole)
        write_more(self.folder, whole)
        return whole


@contextmanager
def placing(folder: Path) -> Iterator[Place]:
    """A scratch folder next to `folder`, which this process alone may write while the block runs; it is removed.

    Raises `UserError` where `folder` is something else than a bundle, a damaged one, or in use.
    """
    check_name(folder.absolute().name, "bundle folder")
    manifest_file = folder / MANIFEST_FILE
    if folder.exists() and not manifest_file.is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} exists and is no bundle: choose another --out, it is not overwritten")
    folder = folder.absolute()
    try:
        with scratch_beside(folder, "export") as scratch:
            before = read_manifest(folder) if manifest_file.is_file() else None
            if before is not None:
                _settle(folder, before)
            yield Place(folder, scratch, before)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise UserError(
            f"cannot write bundle {folder}: {error.strerror or error}{where}; choose another --out"
        ) from error


def net_sha256(nets: Iterable[MultiTaskNet], precision: Mapping[str, str]) -> str:
    """Fingerprint of one or several exported nets: tasks, input size, precision and weights."""
    digest = hashlib.sha256(repr(sorted(precision.items())).encode())
    for net in nets:
        tasks = [(task.name, task.kind, task.channels, task.classes) for task in net.tasks]
        digest.update(f"{tasks} {tuple(net.input_size)}".encode())
        for name, tensor in sorted(net.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _joined(before: Manifest, made: Manifest, folder: Path) -> tuple[Manifest, dict[str, str]]:
    """The bundle with the engines that were made, and where their folders go, by what they are called in the scratch.

    An engine that is there to the byte stays where it is; one of the same target that differs is replaced.
    """
    targets, files, moves = dict(before.targets), dict(before.files), dict[str, str]()
    for name, target in made.targets.items():
        own, old = _files_of(made, target), before.targets.get(name)
        if old is not None and _files_of(before, old) == own:
            engine_folder = old.folder
        else:
            engine_folder = moves[target.folder] = _free(folder, target.folder)
            gone = () if old is None else (f"{old.folder}/{file}" for file in old.files)
            for file in gone:
                files.pop(file, None)
        files |= {f"{engine_folder}/{file}": digest for file, digest in own.items()}
        targets[name] = target.model_copy(update={"folder": engine_folder})
    before_of = {(use.layer, use.task): use for use in before.experts}
    changes = {
        "created": made.created,
        "targets": targets,
        "files": files,
        "experts": tuple(_with_dropped(use, before_of.get((use.layer, use.task))) for use in made.experts),
        "provenance": made.provenance,
        "levels": made.levels,
    }
    return before.model_copy(update=changes), moves


def _with_dropped(use: BundleExperts, before: BundleExperts | None) -> BundleExperts:
    """Keep the recorded drops of the engines that stay."""
    return use.model_copy(
        update={"dropped_by_target": {**(before.dropped_by_target if before else {}), **use.dropped_by_target}}
    )


def _files_of(manifest: Manifest, target: BundleTarget) -> dict[str, str]:
    return {file: manifest.files[f"{target.folder}/{file}"] for file in target.files}


def _free(folder: Path, name: str) -> str:
    """A name for an engine's folder that nothing in the bundle has."""
    numbers = iter(range(2, 10**6))
    free = name
    while (folder / free).exists() or (folder / free).is_symlink():
        free = f"{name}-{next(numbers)}"
    return free


def _settle(folder: Path, manifest: Manifest) -> None:
    """Finish what an export began: engines that the manifest names have arrived, what it does not name goes."""
    named = {target.folder for target in manifest.targets.values()}
    for marker in folder.glob(f"engines/*/{MOVING_FILE}"):
        engine_folder = marker.parent
        if gone := engine_folder.relative_to(folder).as_posix() not in named:
            files = read_json(marker, "list of files")
            if not isinstance(files, dict):
                raise UserError(f"{marker} is no list of files with their hashes, as edgemtl writes it: remove it")
            remove_written(engine_folder, {str(name): str(digest) for name, digest in files.items()})
        marker.unlink()
        if gone and not any(engine_folder.iterdir()):
            engine_folder.rmdir()
