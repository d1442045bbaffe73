"""A forecaster as far as it tells what its forecasts look at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cellwise.tasks.forecasting.frames import Table
from cellwise.tasks.forecasting.options import ForecastOptions
from cellwise.tasks.options import check_values

if TYPE_CHECKING:
    from cellwise.tasks.forecasting.what_if import Change

__all__ = ["Explaining"]


class Explaining(ABC):
    """Two questions to a forecaster: what it looks at, and what it would say if a covariate were another."""

    table_: Table

    @abstractmethod
    def read(self, source: Any) -> Table:
        """Read a frame or file."""

    @abstractmethod
    def _check_fitted(self) -> None:
        """Raise NotFittedError before `fit`."""

    def what_if(
        self,
        frame: Any = None,
        changes: Mapping[str, Change] | None = None,
        *,
        horizon: int | None = None,
        **more: Change,
    ) -> Any:
        """The same forecast with covariates changed that are known in advance: `what_if(promo=0)`.

        frame: as `predict` takes it. changes, and more of them by name: column -> a value for every future step, one
        for each of them (H,), or a function of those that are there. Returns a frame with both forecasts and the
        difference of their medians. It tells what the network expects, not what caused what.
        Raises OptionError for a column that is none, or is known only up to the present."""
        from cellwise.tasks.forecasting.what_if import what_if

        self._check_fitted()
        this: Any = self
        steps = this.horizon if horizon is None else horizon
        check_values(ForecastOptions, {"horizon": steps})
        table = self.table_ if frame is None else self.read(frame)
        return what_if(this, table, {**(changes or {}), **more}, steps).frame()

    def influence(self, frame: Any = None) -> Any:
        """What forecasts look at, as a frame: one row for the past of the series, the calendar, and each covariate.

        error_growth: how much the error of the held-out windows grows, in percent, when the column tells of another
        time (NaN where nothing was held out, or a frame is given). share: of all that moves a forecast away from the
        level of the last season, in percent (NaN where a series is too short). See `forecasting.influence`."""
        from cellwise.tasks.forecasting.looks import influence_frame, looks_of

        self._check_fitted()
        this: Any = self
        table = self.table_ if frame is None else self.read(frame)
        return influence_frame(looks_of(this, table, measured=frame is None), table.schema.backend)
