"""Graph in, graph out: the derivative of a step, what a forward pass saves for it, states that begin anew, and several
widths as one."""

from cellwise.passes.differentiate import Derivative, differentiate
from cellwise.passes.padding import masks, padded
from cellwise.passes.restarting import restarting
from cellwise.passes.tape import saved_for

__all__ = ["Derivative", "differentiate", "masks", "padded", "restarting", "saved_for"]
