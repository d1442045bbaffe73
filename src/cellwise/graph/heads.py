"""Cells whose units fall into heads: each sees the states of its own head alone, and so could run by itself."""

from __future__ import annotations

import math
from functools import lru_cache

from cellwise.graph.expr import StepGraph
from cellwise.graph.forms import BLOCKS
from cellwise.graph.ops import PROJECT


@lru_cache(maxsize=512)
def heads_of(graph: StepGraph) -> int:
    """Into how many heads the units of a cell fall, all of one size; 1 where they do not.

    Units meet in a product with a state, whose weight must then be of blocks, and in a reduction, of which there must
    be none. All else is computed unit by unit, or is the same number for all. Of gates with 4 and with 6 blocks a head
    has 2 of the ones and 3 of the others, and there are two. Units of several widths fall into none.

    >>> from cellwise import cells
    >>> heads_of(cells.SLSTM(heads=4).graph), heads_of(cells.SLSTM().graph)
    (4, 1)
    """
    forms = [node.form for node in graph.of(PROJECT)]
    counts = [int(form.number) for form in forms if form is not None and form.kind == BLOCKS]
    if graph.widths or graph.reductions or len(counts) != len(forms):
        return 1
    return math.gcd(*counts) or 1
