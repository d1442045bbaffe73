"""How many epochs suit the data."""

from __future__ import annotations

import numpy as np

from cellwise.tasks.forecasting.panel import Panel

__all__ = ["epochs_for"]

# Chosen by measuring, see docs/decisions/0031.
VALUES_PER_EPOCH = 15  # with fewer values an epoch, the network learns short series by heart
FEWEST = 2
EPOCHS_OF_FEW, EPOCHS_OF_MANY = 40, 20
MANY_SERIES = 30
MOST_STEPS = 20_000  # of the optimizer: more data needs fewer epochs, not more time


def epochs_for(panel: Panel, steps: int) -> int:
    """How many epochs to train on a panel, at `steps` batches each.

    Few values soon say all they have to say: 24 months are worth 2 epochs, 100 years 7. A long series is worth more
    epochs than many series, whose epochs hold more."""
    values = sum(int(np.count_nonzero(~np.isnan(y))) for y in panel.y)
    most = EPOCHS_OF_MANY if len(panel) >= MANY_SERIES else EPOCHS_OF_FEW
    return max(FEWEST, min(round(values / VALUES_PER_EPOCH), most, MOST_STEPS // max(1, steps)))
