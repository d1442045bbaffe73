"""How many epochs suit the data."""

from __future__ import annotations

import numpy as np

from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.windows import plan

__all__ = ["epochs_for"]

# Chosen by measuring, see docs/decisions/0031.
VALUES_PER_EPOCH = 15  # with fewer values an epoch, the network learns short series by heart
WINDOWS = 8_000  # to be learned from in all epochs, within the bounds that follow
FEWEST, USUAL, MOST = 2, 20, 40
MOST_STEPS = 20_000  # of the optimizer: very much data needs fewer epochs


def epochs_for(panel: Panel, batch_size: int) -> int:
    """How many epochs to train on a panel.

    Few values have soon said what they have to say: 24 months are worth 2 epochs, 100 years 7. An epoch of one long
    series holds fewer windows than one of a thousand series, and it takes more of them."""
    size, _, steps = plan(panel.lengths.tolist(), batch_size)
    values = sum(int(np.count_nonzero(~np.isnan(y))) for y in panel.y)
    by_windows = min(MOST, max(USUAL, round(WINDOWS / max(1, size * steps))))
    return max(FEWEST, min(round(values / VALUES_PER_EPOCH), by_windows, MOST_STEPS // max(1, steps)))
