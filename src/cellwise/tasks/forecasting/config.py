"""All that a forecasting network is built from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np

from cellwise import cells
from cellwise.cells import Cell
from cellwise.tasks.forecasting.covariates import Covariates
from cellwise.tasks.forecasting.lags import Lags
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.series import relative_step
from cellwise.tasks.forecasting.unit import answer_unit

__all__ = ["DEFAULT_QUANTILES", "NetworkConfig"]

LONG_SEASONS = {"min": 7 * 1440, "h": 7 * 24}  # units in the season after that of a day: a week
FEWEST_SEASONS = 6  # of a long season, before the network is shown it


def seasons_of(panel: Panel, horizon: int) -> tuple[int, ...]:
    """The season of a panel and the longer ones that its frequency suggests and its length bears out."""
    frequency = panel.frequency
    season, (long, rest) = (
        frequency.season_length,
        divmod(LONG_SEASONS.get(frequency.unit, 0), frequency.multiple),
    )
    bears = len(panel) and long >= 2 * season > 2 and panel.lengths.max() - horizon >= FEWEST_SEASONS * long
    return (season, long) if bears and not rest else (season,)


_COVARIATES = tuple(each.name for each in fields(Covariates))
DEFAULT_QUANTILES = (0.05, 0.1, 0.5, 0.9, 0.95)  # the median, and bands of 80 and 90 %


@dataclass(frozen=True)
class NetworkConfig:
    """All that a network is built from; with the weights, all that a forecast needs. JSON-able both ways.

    cell: a name, or a Cell; hidden_size, num_layers, dropout: of each member; members: networks that are
    trained side by side and averaged; horizon: steps decoded at once; quantiles: sorted, an odd number, the
    median in the middle; season_length: steps; seasons: of the season and of longer ones, that one first (empty: it
    alone); covariates: centre and size of each; typical_step: relative step of the training data, the spread assumed
    of a series before it shows its own; unit: of the answers, in spreads.

    The defaults of seasons and unit are what networks of versions before they had them do.
    """

    horizon: int
    season_length: int
    covariates: Covariates
    typical_step: float = 0.1
    cell: str | Cell = "gru"
    hidden_size: int = 128
    num_layers: int = 1
    dropout: float = 0.1
    members: int = 1
    quantiles: tuple[float, ...] = DEFAULT_QUANTILES
    seasons: tuple[int, ...] = ()
    unit: float = 1.0

    def __post_init__(self) -> None:
        ordered = sorted(set(self.quantiles))
        if list(self.quantiles) != ordered or len(ordered) % 2 == 0 or ordered[len(ordered) // 2] != 0.5:
            raise ValueError(f"quantiles must be sorted with 0.5 in the middle, not {self.quantiles}")
        if self.seasons and (self.seasons[0] != self.season_length or min(self.seasons) < 1):
            raise ValueError(
                f"the seasons {self.seasons} do not begin with that of {self.season_length} steps"
            )
        numbers = [
            self.typical_step,
            self.unit,
            *(value for name in _COVARIATES for value in getattr(self.covariates, name)),
        ]
        if not all(isinstance(each, int | float) and math.isfinite(each) for each in numbers):
            raise ValueError("the size of a step or of a covariate is no number")
        if self.unit <= 0:
            raise ValueError(f"the unit of answers must be above 0, not {self.unit}")

    @classmethod
    def for_panel(cls, panel: Panel, *, horizon: int, **options: Any) -> NetworkConfig:
        """The configuration that suits a panel: its season, and the sizes of what it holds."""
        steps = np.array([relative_step(y) for y in panel.y])
        steps = steps[np.isfinite(steps) & (steps > 0)]
        typical_step = float(np.median(steps).clip(1e-3, 1.0)) if len(steps) else 0.1
        found: dict[str, Any] = {
            "season_length": panel.frequency.season_length,
            "seasons": seasons_of(panel, horizon),
            "covariates": Covariates.measure(panel),
            "typical_step": typical_step,
            "unit": answer_unit(panel, horizon, typical_step),
        }
        return cls(horizon=horizon, **found | options)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists. Of the cell only the name: a run folder keeps its equations apart."""
        return asdict(replace(self, cell=cells.get(self.cell).name))

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NetworkConfig:
        """The inverse of `to_dict`, also after a trip through JSON. Raises ValueError, KeyError or TypeError."""
        given = dict(values)
        pairs = {name: tuple(given["covariates"][name]) for name in _COVARIATES}
        lists: dict[str, Any] = {
            name: tuple(given[name]) for name in ("quantiles", "seasons") if name in given
        }
        return cls(**given | {"covariates": Covariates(**pairs)} | lists)

    def check_fits(self, panel: Panel, num_calendar: int) -> None:
        """Raise ValueError unless this is the configuration of a network that was trained on such a panel."""
        wanted = (
            panel.frequency.season_length,
            *(num_calendar + len(panel.known_names),) * 2,
            *(len(panel.past_names),) * 2,
        )
        found = (self.season_length, *(len(getattr(self.covariates, name)) for name in _COVARIATES))
        if wanted != found:
            raise ValueError("its network is not for its data")

    @property
    def lags(self) -> Lags:
        """How far back the network looks for what longer seasons did."""
        return Lags.of(self.seasons or (self.season_length,), self.horizon)

    @property
    def num_known(self) -> int:
        """Covariates known in advance."""
        return len(self.covariates.known_center)

    @property
    def num_past(self) -> int:
        """Covariates known only up to now."""
        return len(self.covariates.past_center)
