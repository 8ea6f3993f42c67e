"""A static net as a graph of operators, which exporters write and simulations run."""

from edgemtl.models.graph.evaluate import operator_of, run_graph
from edgemtl.models.graph.graph import Graph, Node, Program, outside, trace, trace_program

__all__ = ["Graph", "Node", "Program", "operator_of", "outside", "run_graph", "trace", "trace_program"]
