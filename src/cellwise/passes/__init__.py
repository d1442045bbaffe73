"""Graph in, graph out: the derivative of a step, and what a forward pass saves for it."""

from cellwise.passes.differentiate import Derivative, differentiate
from cellwise.passes.tape import saved_for

__all__ = ["Derivative", "differentiate", "saved_for"]
