"""A static net as a graph of operators, which exporters write and simulations run."""

from edgemtl.models.graph.evaluate import operator_of, run_graph
from edgemtl.models.graph.graph import Graph, Node, outside, trace

__all__ = ["Graph", "Node", "operator_of", "outside", "run_graph", "trace"]
