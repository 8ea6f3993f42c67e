"""The search itself: one loop, and the strategies that propose designs."""

from edgemtl.nas.search.run import (
    Preflight,
    SearchRequest,
    prepare_images,
    search,
)
from edgemtl.nas.search.strategies.masks import (
    MaskDistribution,
)
from edgemtl.nas.search.strategies.preference import (
    make_table,
    widths_for,
)
from edgemtl.nas.search.strategies.registry import (
    strategy_names,
)

__all__ = [
    "MaskDistribution",
    "Preflight",
    "SearchRequest",
    "make_table",
    "prepare_images",
    "search",
    "strategy_names",
    "widths_for",
]
