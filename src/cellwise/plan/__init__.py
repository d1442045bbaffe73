"""The narrow waist between equations and backends: how a cell runs over a sequence, as plain frozen data.

program    the language: arrays, and stages of matrix products followed by pointwise work
forward    a step forward, with or without a tape          backward   its derivative, and what it needs kept
arrays     those that programs share                       products   matrix products as accumulators
schedule   nodes into stages                               listing    a program as text
layout     the parameters of a layer: names and shapes     padding    those of several widths in rows of one
cost, depth, polynomial   what a cell costs, exactly
"""

from cellwise.plan.layout import (
    Filling,
    ParameterSpec,
    filling_of,
    output_sizes,
    parameter_layout,
    recurrent_columns,
    state_sizes,
    width_problem,
)
from cellwise.plan.padding import PaddedGate, Padding, padding_of

__all__ = [
    "Filling",
    "PaddedGate",
    "Padding",
    "ParameterSpec",
    "filling_of",
    "output_sizes",
    "padding_of",
    "parameter_layout",
    "recurrent_columns",
    "state_sizes",
    "width_problem",
]
