"""`edgemtl targets`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from edgemtl.cli.screen import Screen
from edgemtl.cli.verb import verb

if TYPE_CHECKING:
    from edgemtl.devices import Device
    from edgemtl.targets import ExportTarget
    from edgemtl.traits import TargetTraits

__all__ = ["targets"]


@verb(
    "targets", examples=("edgemtl targets", "edgemtl targets --device raspberry-pi-5", "edgemtl targets --format json")
)
@click.option("--device", metavar="NAME", default="host", show_default=True, help="What they are to run on.")
def targets(screen: Screen, device: str) -> None:
    """List the runtimes to export for, as they are on a device.

    The search offers a target only the precisions that it honours there, per block or for the whole engine. INT8 is
    written as the device's processor multiplies exactly.
    """
    from edgemtl.cli.installed import install_line
    from edgemtl.devices import load_device

    offered = list(_offered(screen, load_device(device)))
    if not screen.as_json:
        rows = [
            (
                each.traits.name,
                each.traits.title,
                _per_block(each.traits),
                " ".join(each.traits.engine_precisions),
                _int8(each),
                "yes" if _is_here(each.traits) else install_line(each.traits.extra),
            )
            for each in offered
        ]
        columns = ("name", "what", "per block", "per engine", "INT8 is", "installed")
        screen.table(f"Targets on {device}", columns, rows)
    screen.json(
        [
            {
                **asdict(each.traits),
                "quantities": [quantity.name for quantity in each.traits.quantities],
                "scheme": asdict(each.scheme),
                "installed": _is_here(each.traits),
            }
            for each in offered
        ]
    )


def _offered(screen: Screen, device: Device) -> Iterator[ExportTarget]:
    """The targets that a device has a runtime of; a line on the others, and on those that are broken."""
    from edgemtl.errors import UserError
    from edgemtl.targets import find_target, target_names

    runtimes, lacking = [each.name for each in device.runtimes], []
    for name in target_names():
        try:
            if device.is_host or find_target(name).traits.runtime in runtimes:
                yield find_target(name, device)
            else:
                lacking.append(name)
        except UserError as error:  # one broken package must not hide the other targets
            screen.note(f"warning: {error}")
    if lacking:
        screen.note(f"not on {device.name}, whose file names the runtimes {', '.join(runtimes)}: {', '.join(lacking)}")


def _per_block(traits: TargetTraits) -> str:
    """Precisions of a block in words, and those of its weights alone, which nets of one's own have."""
    weights = f"; weights {' '.join(traits.weight_precisions)}" if traits.weight_precisions else ""
    return " ".join(traits.block_precisions) + weights


def _int8(target: ExportTarget) -> str | None:
    """The scheme in words."""
    from edgemtl.arithmetic import EXACT_WEIGHT

    if "int8" not in target.traits.block_precisions:
        return None
    scheme = target.scheme
    signs = "signed" if scheme.activation == "int8" else "unsigned"
    return f"{signs} activations, {8 if scheme.weight_limit > EXACT_WEIGHT else 7}-bit weights"


def _is_here(traits: TargetTraits) -> bool:
    """Whether the runtime of a target is installed; one without an extra comes with edgemtl."""
    from edgemtl.cli.installed import is_installed

    return not traits.extra or is_installed(traits.runtime)
