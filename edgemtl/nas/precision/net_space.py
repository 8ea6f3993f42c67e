"""The space of a net of one's own: channels of each group, precision of each block and of the engine."""

from __future__ import annotations

from edgemtl.nas.precision.forms import NarrowForms
from edgemtl.nas.precision.joint import LEVELS
from edgemtl.nas.precision.net_plan import OWN_NET, NetSpec, weighted_blocks
from edgemtl.nas.prune import Fit
from edgemtl.own import block_records
from edgemtl.spaces import Space

__all__ = ["net_space"]

_WHOLE = "exported whole"


def net_space(forms: NarrowForms) -> Space:
    """All that a strategy may choose of a net, its judged tasks being those of the space.

    Widths of a group are those of the levels that a greedy search tries, and a few between them. Raises
    `UnsupportedError` for a net that PyTorch cannot export.
    """
    narrowing, setup = forms.narrowing, forms.whole.setup
    costs, traits = narrowing.opened.costs, setup.bench.target.traits
    exported = forms.proposal(_WHOLE, Fit(dict(costs.sizes), {})).setup
    forms.let_go(_WHOLE)
    spec = NetSpec(
        widths=narrowing.widths(narrowing.levels(LEVELS)),
        sizes=dict(costs.sizes),
        rounded=exported.blocks,
        engines=traits.engine_precisions,
        blocks=weighted_blocks(block_records(exported.bench.model, exported.structure), costs),
    )
    tasks = setup.floors.tasks
    choices, size = OWN_NET.choices(spec, tasks), setup.bench.model.input_size
    return Space("own", OWN_NET, spec, tasks, size, choices, traits.int8_channel_bytes)
