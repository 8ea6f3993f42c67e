"""`edgemtl targets`."""

from __future__ import annotations

from dataclasses import asdict

from edgemtl.cli._screen import Screen
from edgemtl.cli._verb import verb

__all__ = ["targets"]


@verb("targets", examples=("edgemtl targets", "edgemtl targets --format json"))
def targets(screen: Screen) -> None:
    """List the runtimes to export for.

    The search offers a target only the precisions that it honours, per block or for the whole engine.
    """
    from edgemtl.cli._installed import install_line, is_installed
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
                "yes" if is_installed(each.runtime) else install_line(each.extra),
            )
            for each in traits
        ]
        screen.table("Targets", ("name", "what", "per block", "per engine", "installed"), rows)
    screen.json([{**asdict(each), "installed": is_installed(each.runtime)} for each in traits])
