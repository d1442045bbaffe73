"""Graph in, graph out: the derivative of a step, and what a forward pass keeps for it."""

from cellwise.passes.differentiate import Derivative, differentiate
from cellwise.passes.tape import kept_for

__all__ = ["Derivative", "differentiate", "kept_for"]
