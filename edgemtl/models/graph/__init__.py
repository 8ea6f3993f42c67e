"""A static net as a graph of operators, which exporters write and simulations run."""

from edgemtl.models.graph.graph import (
    Graph,
    Node,
    outside,
    trace,
)

__all__ = [
    "Graph",
    "Node",
    "outside",
    "trace",
]
