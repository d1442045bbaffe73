"""The narrow waist between equations and backends: how a cell runs over a sequence, as plain frozen data.

program    the language: arrays, and stages of matrix products followed by pointwise work
forward    a step forward, with or without a tape          backward   its derivative, and what it needs kept
arrays     those that programs share                       products   matrix products as accumulators
schedule   nodes into stages                               listing    a program as text
layout     the parameters of a layer: names and shapes     cost, depth, polynomial   what a cell costs, exactly
"""

from cellwise.plan.layout import (
    Filling,
    ParameterSpec,
    filling_of,
    parameter_layout,
    state_sizes,
    width_problem,
)

__all__ = ["Filling", "ParameterSpec", "filling_of", "parameter_layout", "state_sizes", "width_problem"]
