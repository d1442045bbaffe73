"""What an equation is: nodes, the table of ops, tracing a cell's `step`, a verifier, a printer and an interpreter."""

from cellwise.graph.expr import Node, Shape, StepGraph
from cellwise.graph.interpret import evaluate
from cellwise.graph.text import equations, listing
from cellwise.graph.trace import trace
from cellwise.graph.verify import verify

__all__ = ["Node", "Shape", "StepGraph", "equations", "evaluate", "listing", "trace", "verify"]
