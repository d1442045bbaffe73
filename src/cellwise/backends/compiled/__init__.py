"""What backends share whose kernels are compiled from a cell's equations, whatever compiles them and for what device.

compiler        what a compiler is to do; which there are      backend          such a backend
cell_kernels    the kernels of a cell, and its key for torch   layer_pass       one layer in one direction, called
forward_pass, backward_pass   a call as buffers, launches and gradients, worked out once for each shape
plain           the short path of a call                       operator         the same as operators of torch
time_schedule   the order of time steps                        saved            what is saved for the backward pass
gradients       those of weights                               double_backward  second derivatives
handed_out      outputs that the caller may write to
cache           compiled code on disk (private)                scratch          memory of the host
"""

from cellwise.backends.compiled.backend import Compiled as Compiled
