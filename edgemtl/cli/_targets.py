"""`edgemtl targets`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from edgemtl.cli._screen import Screen
from edgemtl.cli._verb import verb

if TYPE_CHECKING:
    from edgemtl.targets import TargetTraits

__all__ = ["targets"]


@verb("targets", examples=("edgemtl targets", "edgemtl targets --format json"))
def targets(screen: Screen) -> None:
    """List the runtimes to export for.

    The search offers a target only the precisions that it honours, per block or for the whole engine.
    """
    from edgemtl.cli._installed import install_line
    from edgemtl.errors import UserError
    from edgemtl.targets import find_target, target_names

    traits = []
    for name in target_names():
        try:
            traits.append(find_target(name).traits)
        except UserError as error:  # one broken package must not hide the other targets
            screen.note(f"warning: {error}")
    if not screen.as_json:
        rows = [
            (
                each.name,
                each.title,
                " ".join(each.block_precisions),
                " ".join(each.engine_precisions),
                "yes" if _is_here(each) else install_line(each.extra),
            )
            for each in traits
        ]
        screen.table("Targets", ("name", "what", "per block", "per engine", "installed"), rows)
    screen.json([{**asdict(each), "installed": _is_here(each)} for each in traits])


def _is_here(traits: TargetTraits) -> bool:
    """Whether the runtime of a target is installed; one without an extra comes with edgemtl."""
    from edgemtl.cli._installed import is_installed

    return not traits.extra or is_installed(traits.runtime)
