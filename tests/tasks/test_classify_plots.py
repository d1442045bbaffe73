"""Pictures of a classifier's report."""

from __future__ import annotations

import numpy as np
import pytest

from cellwise.tasks.classify.plots import MOST_COLUMNS, mistakes_plot

pytestmark = pytest.mark.draws


def test_a_picture_of_long_series_is_no_larger_than_one_of_as_many_columns() -> None:
    rng = np.random.default_rng(0)

    def size(steps: int) -> int:
        return len(mistakes_plot([rng.normal(size=(steps, 2))], [rng.normal(size=steps)], ["a"]))

    assert size(20 * MOST_COLUMNS) < 1.2 * size(2 * MOST_COLUMNS)


def test_a_single_step_of_a_long_series_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[np.ndarray] = []
    spoken: list[np.ndarray] = []
    from matplotlib.axes import Axes

    plot, stairs = Axes.plot, Axes.stairs
    monkeypatch.setattr(Axes, "plot", lambda axes, x, y, **how: (drawn.append(y), plot(axes, x, y, **how))[1])
    monkeypatch.setattr(
        Axes,
        "stairs",
        lambda axes, values, *rest, **how: (spoken.append(values), stairs(axes, values, *rest, **how))[1],
    )
    values, share = np.zeros((7001, 1)), np.zeros(7001)
    values[[17, 6000, 7000], 0] = 5, -3, 1
    share[[17, 7000]] = 2, -1
    mistakes_plot([values], [share], ["a"])
    assert sorted(set(drawn[0].tolist())) == [-3, 0, 1, 5]
    for found in spoken:  # one column of each colour stands out, what speaks for it twice as high
        assert (found > found.min()).sum() == 1
    assert np.ptp(spoken[0]) == pytest.approx(2 * np.ptp(spoken[1]))
