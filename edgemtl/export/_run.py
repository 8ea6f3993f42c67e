"""From a run's folder to a bundle: the design that a search kept, with the data it was searched on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from edgemtl.bundle import Manifest
from edgemtl.data import open_source
from edgemtl.errors import UserError
from edgemtl.export._bundle import Origin, export_bundle
from edgemtl.nas import RunFolder
from edgemtl.train import spread

__all__ = ["export_run"]

CALIBRATION_IMAGES = 32
PARITY_IMAGES = (48, 512)
"""Where every pixel has a label, and where an image has one: there two flipped labels of 48 would be 4 %."""


def export_run(
    run: Path,
    targets: Sequence[str] = (),
    out: Path | None = None,
    *,
    design: str = "best",
    progress: Callable[[str], None] | None = None,
) -> Manifest:
    """Export a kept design of a run (`best`, `baseline`, or a key of its front) to `out` (by default `run/bundle`).

    `targets` default to the one that the run was searched for. Parity is checked on validation images of the run's
    data. Raises `UserError` where the run, the design or its data are missing, damaged or changed since the search.
    """
    folder = RunFolder(run)
    config = folder.config()
    candidate = folder.load(design)
    size = candidate.net.input_size
    source = open_source(config["data"], size)
    if source.identity != config["data_identity"]:
        raise UserError(f"data {config['data']!r} has changed since run {run} was made: search again")
    origin = Origin(
        space=config["space"],
        family=candidate.design.space.family.name,
        design=candidate.design.as_json(),
        run=str(run),
        seed=config["seed"],
        data={"name": source.name, "identity": source.identity},
    )
    images = PARITY_IMAGES[not any(task.dense for task in source.tasks)]
    return export_bundle(
        candidate.net,
        candidate.design.precision,
        list(targets) or [config["target"]],
        out or run / "bundle",
        calibration=spread(source.split("calibration"), CALIBRATION_IMAGES),
        validation=spread(source.split("validation"), images),
        ranges=candidate.ranges,
        origin=origin,
        progress=progress,
    )
