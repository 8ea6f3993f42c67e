"""Schema of the YAML file of a user's own data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, model_validator

from edgemtl.tasks import Exact, RelativePath, TaskSpec, all_kinds

__all__ = ["FolderSpec", "Folders", "Fractions", "folder_kinds"]

Share = Annotated[float, Field(ge=0, le=1)]


class Folders(Exact):
    """A folder of images per split."""

    train: RelativePath
    validation: RelativePath
    test: RelativePath
    calibration: RelativePath | None = None


class Fractions(Exact):
    """Shares of one folder's images per split; they add up to one."""

    train: Share
    validation: Share
    test: Share
    calibration: Share = 0.0

    @model_validator(mode="after")
    def _whole(self) -> Fractions:
        total = self.train + self.validation + self.test + self.calibration
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the shares add up to {total:g}: they must add up to 1")
        return self


def folder_kinds() -> tuple[str, ...]:
    """The kinds of task that a user's own data set may have, built in and plugged in."""
    return tuple(kind.name for kind in all_kinds() if kind.labels is not None)


@dataclass(frozen=True)
class FolderSpec:
    """A described data set: images per split or one folder with shares, and how each task's labels are stored."""

    images: Folders | str
    split: Fractions
    tasks: dict[str, TaskSpec]
