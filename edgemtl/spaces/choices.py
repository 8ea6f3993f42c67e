"""The choices that a network family offers a search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["Choice", "Option", "Values"]

Option = int | str
Values = Mapping[str, Option]
"""One option for each choice, by the choice's name; a `Design` is one."""


@dataclass(frozen=True)
class Choice:
    """One named decision: `options` from smallest to largest, of the trunk (`task` is None) or of one task.

    `active_if` names other choices and the options under which this one matters; elsewhere it has no effect and a
    canonical design holds its first option. `precision_of` is the block, or `engine`, whose precision it is about;
    other choices are about the architecture. `mask_of` is what a choice of `skip` or `keep` lets its task leave out,
    `kind_of` the stage whose blocks are of the kind that it names: a target may lack some (`TargetTraits.lacking`).
    """

    name: str
    options: tuple[Option, ...]
    task: str | None = None
    active_if: Mapping[str, tuple[Option, ...]] = field(default_factory=dict)
    precision_of: str = ""
    mask_of: str = ""
    kind_of: str = ""

    def active(self, values: Values) -> bool:
        """Whether this choice has an effect under `values`."""
        return all(values[name] in options for name, options in self.active_if.items())
