"""The data of a report, gathered from the folder of a run, a bundle or a profile."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from edgemtl.blocks import BlockRecord
from edgemtl.bundle import MANIFEST_FILE, Manifest, read_manifest
from edgemtl.errors import UserError, brief, naming
from edgemtl.files.disk import open_regular, read_json
from edgemtl.files.images import read_picture
from edgemtl.files.paths import inside
from edgemtl.profiling import Profile, read_profile
from edgemtl.results import RESULT_FILE, Result, read_result

__all__ = ["ModelCost", "Picture", "ReportData", "load_report_data"]

PICTURES_LIMIT_BYTES = 3_500_000
PICTURE_WIDTH = 1400
WIDE_PIXELS = 700
PICTURE_LIMIT_BYTES = 400_000


@dataclass(frozen=True)
class Picture:
    """A picture as a data URL, called like its file; `wide` ones want a row for themselves."""

    name: str
    url: str
    wide: bool


class ModelCost(NamedTuple):
    """FLOPs of a call with all tasks (None where they were not counted), parameters, and bytes of weights."""

    flops: int | None
    params: int
    weight_bytes: int


@dataclass(frozen=True)
class ReportData:
    """Data about one model: any of a search's result, a bundle's manifest, profiles and sample pictures.

    `notes` say what was left out of it, and why.
    """

    name: str
    result: Result | None
    manifest: Manifest | None
    profiles: tuple[Profile, ...]
    pictures: tuple[Picture, ...]
    notes: tuple[str, ...] = ()

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks, from the first source that has them."""
        if self.manifest is not None:
            return tuple(task.name for task in self.manifest.tasks)
        if self.result is not None and self.result.tasks:
            return self.result.tasks
        return self.profiles[0].tasks if self.profiles else ()

    @cached_property
    def kinds(self) -> dict[str, str]:
        """Kind of each task, if a manifest names it."""
        return {task.name: task.kind for task in self.manifest.tasks} if self.manifest else {}

    @property
    def design(self) -> Mapping[str, object]:
        """The chosen design: the manifest's, else the result's best; empty where there is neither."""
        if self.manifest is not None and self.manifest.design:
            return self.manifest.design
        return self.result.best.design if self.result is not None and self.result.best is not None else {}

    @property
    def cost(self) -> ModelCost | None:
        """Counted cost: of the result's best design, else the bundle, else the first profile, if it has counts."""
        if self.result is not None and self.result.best is not None:
            best = self.result.best
            return ModelCost(best.flops, best.params, best.bytes)
        if self.manifest is not None:
            cost = self.manifest.cost
            return ModelCost(cost.flops, cost.params, cost.weight_bytes)
        if self.profiles and (counts := self.profiles[0].counts) is not None:
            return ModelCost(counts.total.flops, counts.total.params, counts.total.weight_bytes)
        return None

    @property
    def blocks(self) -> tuple[BlockRecord, ...]:
        """The blocks of the chosen design: the manifest's, else those of the result's best; () if neither has any."""
        if self.manifest is not None and self.manifest.blocks:
            return self.manifest.blocks
        return self.result.best.blocks if self.result is not None and self.result.best is not None else ()

    @property
    def engine_precision(self) -> str:
        """Float type of an engine's blocks that are not INT8; empty where unknown."""
        if self.manifest is not None:
            return self.manifest.precision.get("engine", "")
        return str(self.design.get("engine.precision", ""))


def load_report_data(path: Path) -> ReportData:
    """Read a run folder, a bundle folder, or a single result, manifest or profile file.

    A run folder may hold its bundle in `bundle/`; profiles are all `profile*.json` in either, pictures the PNG files in
    `pictures/`, the first 3.5 MB of them. A profile beside a manifest that measures an engine which the bundle does not
    hold, since an export replaced it, is left out. Raises `UserError` where there is nothing to report.
    """
    if path.is_file():
        return _from_file(path)
    if not path.is_dir():
        raise UserError(
            f"{path} does not exist: give a run folder, a bundle, or a result.json, manifest.json or profile.json"
        )
    folders = [folder for folder in (path, path / "bundle") if folder.is_dir()]
    result = read_result(_own(path, path / RESULT_FILE)) if (path / RESULT_FILE).exists() else None
    bundle = next((folder for folder in folders if (folder / MANIFEST_FILE).is_file()), None)
    manifest = None if bundle is None else read_manifest(_own(path, bundle))
    profile_of = {
        file: read_profile(_own(path, file)) for folder in folders for file in sorted(folder.glob("profile*.json"))
    }
    replaced = [file for file, each in profile_of.items() if file.parent == bundle and _is_replaced(each, manifest)]
    profiles = tuple(profile for file, profile in profile_of.items() if file not in replaced)
    if result is None and manifest is None and not profiles:
        raise UserError(f"{path} holds no result.json, manifest.json or profile.json: give a run folder or a bundle")
    files = [file for folder in folders for file in sorted((folder / "pictures").glob("*.png"))]
    notes = tuple(
        f"{file.name} measures an engine that the bundle does not hold, and is left out: run edgemtl profile again"
        for file in replaced
    )
    pictures = _pictures([_own(path, file) for file in files])
    return ReportData(path.resolve().name, result, manifest, profiles, pictures, notes)


def _is_replaced(profile: Profile, manifest: Manifest | None) -> bool:
    """Whether a profile is of another engine than the bundle has for its target; False where it is unknown."""
    if manifest is None or profile.engine_sha256 is None:
        return False
    return profile.target not in manifest.targets or manifest.engine_sha256(profile.target) != profile.engine_sha256


def _own(folder: Path, file: Path) -> Path:
    """A file of the folder; raises `UserError` where a link leads out of it."""
    return inside(folder, file.relative_to(folder).as_posix(), "folder")


def _from_file(path: Path) -> ReportData:
    if not _begins_as_json(path):
        first = f"edgemtl profile {path} writes a profile of it; " if path.suffix == ".onnx" else ""
        raise UserError(
            f"{path} is no result, manifest or profile of edgemtl: {first}give a run folder, a bundle, or a "
            "result.json, manifest.json or profile.json"
        )
    content = read_json(path, "file")
    schema = str(content.get("schema")) if isinstance(content, dict) else ""
    if schema.startswith("edgemtl.result/"):
        return ReportData(path.resolve().parent.name, read_result(path), None, (), ())
    if schema.startswith("edgemtl.profile/"):
        profile = read_profile(path)
        return ReportData(profile.name, None, None, (profile,), ())
    if schema.startswith("edgemtl.bundle/"):
        return load_report_data(path.parent)
    raise UserError(f"{path} has schema {brief(schema)}: give a result.json, manifest.json or profile.json of edgemtl")


def _begins_as_json(path: Path) -> bool:
    """Whether a file could be an object of JSON, as results, manifests and profiles are."""
    with open_regular(path, "file") as file:
        return file.read(100).lstrip().startswith(b"{")


def _pictures(files: Sequence[Path]) -> tuple[Picture, ...]:
    """As many pictures as keep the page small enough to send, in order."""
    pictures: list[Picture] = []
    for file in files:
        picture = _picture(file)
        if sum(len(each.url) for each in (*pictures, picture)) > PICTURES_LIMIT_BYTES:
            break
        pictures.append(picture)
    return tuple(pictures)


def _picture(file: Path) -> Picture:
    """A picture read and encoded again, so that nothing but pixels enters the page; large ones become smaller JPEGs."""
    with naming(f"picture {file}"):
        image = Image.fromarray(read_picture(file))
    image.thumbnail((PICTURE_WIDTH, 4 * PICTURE_WIDTH))
    encoded, kind = _encoded(image, "PNG"), "png"
    if len(encoded) > PICTURE_LIMIT_BYTES:
        encoded, kind = _encoded(image, "JPEG"), "jpeg"
    url = f"data:image/{kind};base64,{base64.b64encode(encoded).decode()}"
    return Picture(file.stem, url, wide=image.width > WIDE_PIXELS)


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, optimize=True, quality=85)
    return buffer.getvalue()
