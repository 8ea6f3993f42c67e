"""`edgemtl export`."""

from __future__ import annotations

from pathlib import Path

import click

from edgemtl.cli._screen import Screen
from edgemtl.cli._verb import verb

__all__ = ["export"]


@verb(
    "export",
    examples=(
        "edgemtl export runs/first --target onnxruntime --target openvino",
        "edgemtl export runs/first --design baseline --target tensorrt-rtx --out bundles/largest",
    ),
)
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--target",
    "targets",
    metavar="NAME",
    multiple=True,
    help="A runtime to write engines for; several make one bundle.",
)
@click.option("--design", metavar="NAME", default="best", show_default=True, help="Which of the run's designs.")
@click.option("--out", type=click.Path(path_type=Path), help="The bundle's folder; RUN/bundle by default.")
def export(screen: Screen, run: Path, targets: tuple[str, ...], design: str, out: Path | None) -> None:
    """Write a bundle with engines for a design.

    Every task of every engine is checked against PyTorch, tensor by tensor and in the task's own metric.
    """
    from edgemtl.export import export_run

    manifest = export_run(run, targets, out, design=design, progress=screen.say)
    if not screen.as_json:
        rows = [
            (name, task, f"{parity.max_abs_error:.2g}", parity.metric, parity.torch, parity.engine)
            for name, target in manifest.targets.items()
            for task, parity in target.parity.items()
        ]
        screen.table("Parity with PyTorch", ("target", "task", "largest error", "metric", "PyTorch", "engine"), rows)
        bundle = out or run / "bundle"
        screen.say(f"written: {bundle}; next: edgemtl profile {bundle}")
    screen.json(manifest.model_dump(mode="json", by_alias=True))
