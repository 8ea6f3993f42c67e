"""The space of a net of one's own: channels of each group, precision of each block and of the engine."""

from __future__ import annotations

from edgemtl.models.quantization import WEIGHTED
from edgemtl.nas.precision.forms import NarrowForms
from edgemtl.nas.precision.joint import LEVELS
from edgemtl.nas.precision.net_plan import OWN_NET, NetSpec, weighted_blocks
from edgemtl.nas.prune import Fit
from edgemtl.own import block_records, ready_for_rounding
from edgemtl.spaces import Space
from edgemtl.targets import TaskModel

__all__ = ["net_space"]

_WHOLE = "exported whole"
_WEIGHTS = 1
"""Where a layer's weights stand among what it reads; its bias follows them."""


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
        eight=exported.eight,
        four=exported.four,
        engines=traits.engine_precisions,
        blocks=weighted_blocks(
            block_records(exported.bench.model, exported.structure), costs, _biased(exported.bench.model)
        ),
    )
    tasks = setup.floors.tasks
    choices, size = OWN_NET.choices(spec, tasks), setup.bench.model.input_size
    return Space("own", OWN_NET, spec, tasks, size, choices, traits.storage)


def _biased(model: TaskModel) -> frozenset[str]:
    """Names of the weights whose layers add a bias as they are rounded, be it a normalisation that is folded in."""
    layers = (node for node in ready_for_rounding(model).model.graph.node if node.op_type in WEIGHTED)
    names = {node.name for node in layers if len(node.input) > _WEIGHTS + 1}
    return frozenset(node.input[_WEIGHTS] for node in model.model.graph.node if node.name in names)
