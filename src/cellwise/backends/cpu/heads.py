"""When a layer whose units fall into heads is run as several of fewer units, which skip what is zero in its weight."""

from __future__ import annotations

from cellwise.graph import StepGraph
from cellwise.graph.heads import heads_of

# A part of fewer units gains nothing: its steps are short of work. (`benchmarks/heads.py --parts` has the figures.)
FEWEST_UNITS = 32
# What a part costs besides its products, in their multiply-adds; and the steps in whose time a whole weight is made.
COST_OF_A_PART, ROWS_OF_MAKING = 5_000_000, 32


def parts_for(graph: StepGraph, hidden: int, rows: int | None) -> int:
    """Into how many parts of as many units a layer of H is cut; 1 where the whole is faster, or there are no heads.

    A part has one head or several, so that there are as few calls as pay.

    Args:
        rows: valid steps of all sequences; None where they are not known, and may be many.
    """
    heads = heads_of(graph)
    if heads == 1 or hidden % heads:
        return 1
    fitting = [each for each in range(2, heads + 1) if heads % each == 0 and hidden // each >= FEWEST_UNITS]
    if rows is None:
        return max(fitting, default=1)
    products = len(graph.state_gates) * hidden * hidden * (rows + ROWS_OF_MAKING)
    costs = [(products / each + COST_OF_A_PART * each, each) for each in fitting]
    return min([(products, 1), *costs])[1]
