"""Graph in, graph out: the derivative of a step, what a forward pass saves for it, and states that begin anew."""

from cellwise.passes.differentiate import Derivative, differentiate
from cellwise.passes.restarting import restarting
from cellwise.passes.tape import saved_for

__all__ = ["Derivative", "differentiate", "restarting", "saved_for"]
