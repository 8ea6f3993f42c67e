"""From a run's folder to a bundle: the design that a search kept, with the data it was searched on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edgemtl.arithmetic import own_arithmetic
from edgemtl.bundle import Manifest
from edgemtl.data import Source
from edgemtl.devices import Device
from edgemtl.errors import UserError
from edgemtl.export.bundle import export_bundle
from edgemtl.export.levels import check_sharing, export_levels
from edgemtl.export.plain import Plain, export_plain
from edgemtl.export.request import Evidence, ExportRequest, Origin
from edgemtl.export.triton import export_triton
from edgemtl.models.quantization import Ranges
from edgemtl.nas.evaluation import Candidate
from edgemtl.nas.levels import plan_levels
from edgemtl.nas.runs import RunFolder
from edgemtl.progress import Report, note, silent
from edgemtl.train import subsample

__all__ = ["export_run"]

CALIBRATION_IMAGES = 32
PARITY_IMAGES = (48, 512)
"""Where every pixel has a label, and where an image has one: there two flipped labels of 48 would be 4 %."""


def export_run(
    run: Path,
    request: ExportRequest = ExportRequest(),  # noqa: B008 (frozen)
    out: Path | None = None,
    *,
    design: str = "best",
    levels: int = 0,
    supernet: Path | None = None,
    layout: Plain | None = None,
    report: Report = silent,
) -> Manifest:
    """Export a kept design of a run (`best`, `baseline`, or a key of its front) to `out` (by default `run/bundle`).

    The targets and the device of `request` default to those that the run was searched for. Parity is checked on
    validation images of the run's data. With `levels` the bundle holds so many designs, float, over one copy of the
    weights instead (see `nas.levels`), all cut from the run's supernet: `supernet`, or the one that ships. With a plain
    `layout` there are files for use without edgemtl instead, by default in `run/plain` or `run/triton`. Raises
    `UserError` where the run, the design, its data or that supernet are missing, damaged or changed since the search,
    and for a design or a supernet that would not be used.
    """
    _check_levels(levels, layout, design, supernet)
    folder = RunFolder(run)
    # what is right everywhere needs no note
    device = request.device or _own_device(folder, silent if request.portable and not levels else report)
    config = folder.config()
    request = replace(request, targets=request.targets or config.target, device=device, budgets=config.budgets)
    if levels:
        return _export_levels(folder, request, out or run / "bundle", levels, supernet, report)
    candidate, source = folder.load(design), folder.source()
    evidence = _evidence(source, candidate.ranges)
    destination = out or run / ("bundle" if layout is None else layout.form)
    what = candidate.net, candidate.design.precision, request, destination
    origin = _origin(folder, candidate, source)
    if layout is None:
        return export_bundle(*what, evidence, origin, report)
    write = export_triton if layout.form == "triton" else export_plain
    return write(*what, evidence, layout, origin, report)


def _check_levels(levels: int, layout: Plain | None, design: str, supernet: Path | None) -> None:
    if levels and layout is not None:
        raise UserError(
            f"{levels} levels and the layout {layout.form} given: levels share weights, which plain files cannot"
        )
    if levels and design != "best":
        raise UserError(f"design {design!r} and {levels} levels given: levels are designs of their own, drop --design")
    if supernet is not None and not levels:
        raise UserError(f"supernet {supernet} given without levels, which alone are cut from it: add --levels 5")


def _origin(folder: RunFolder, candidate: Candidate, source: Source) -> Origin:
    """Where the net of a run comes from, for the manifest."""
    config = folder.config()
    return Origin(
        space=config.space,
        family=candidate.design.space.family.name,
        design=candidate.design.as_json(),
        blocks=candidate.design.blocks,
        run=str(folder.path),
        seed=config.seed,
        data={"name": source.name, "fingerprint": source.fingerprint},
    )


def _own_device(folder: RunFolder, report: Report) -> Device:
    """The device that a run was made for; reports if that was another machine than this one."""
    device = folder.device()
    if device.is_host and not device.is_here:
        note(
            report,
            f"run {folder.path} was made on another machine ({device.arithmetic}), and its engines are for that; "
            f"for this one ({own_arithmetic()}): --device host",
        )
    return device


def _evidence(source: Source, ranges: Ranges | None = None) -> Evidence:
    """The images that ranges are measured on, where they are not given, and those that parity is checked on."""
    count = PARITY_IMAGES[not any(task.dense for task in source.tasks)]
    return Evidence(
        subsample(source.split("calibration"), CALIBRATION_IMAGES), subsample(source.split("validation"), count), ranges
    )


def _export_levels(
    folder: RunFolder, request: ExportRequest, out: Path, count: int, supernet: Path | None, report: Report
) -> Manifest:
    config = folder.config()
    target = check_sharing(request.targets, request.device, request.jetpack, request.dla)
    planned = plan_levels(folder, count, supernet, report)
    origin = Origin(
        space=config.space,
        family=planned.levels[0].candidate.design.space.family.name,
        run=str(folder.path),
        seed=config.seed,
        data={"name": planned.source.name, "fingerprint": planned.source.fingerprint},
    )
    return export_levels(planned, target, out, evidence=_evidence(planned.source), origin=origin, report=report)
