"""The same forecast with a covariate changed: what the network expects, had the promotion not been planned.

It is the network's answer, learned from how the covariate and the series went together; it proves no cause.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np

from cellwise.tasks.errors import OptionError
from cellwise.tasks.forecasting.covariates import check_reach
from cellwise.tasks.forecasting.frames import FrameSchema, Table
from cellwise.tasks.forecasting.output import forecast_columns, quantiles_of
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.shown_times import short_time
from cellwise.tasks.options import short_repr
from cellwise.tasks.report.table import figure

__all__ = ["Change", "Forecasting", "WhatIf", "parse_changes", "what_if"]

Change: TypeAlias = float | Sequence[float] | np.ndarray | Callable[[np.ndarray], Any]
"""A value for every future step, one for each of them, or a function of those that are there (H,)."""


class Forecasting(Protocol):
    """What is asked twice."""

    target_column: str
    levels: Sequence[int]

    def predict(self, frame: Any, horizon: int) -> Any:
        """Forecasts of a table, as a frame."""


@dataclass(frozen=True, eq=False)
class WhatIf:
    """Two forecasts that differ by some covariates: before and after (N, H, Q), in units of y.

    columns: name -> the covariate's future as given and as changed, both (N, H)."""

    panel: Panel
    schema: FrameSchema
    model: str
    columns: Mapping[str, tuple[np.ndarray, np.ndarray]]
    before: np.ndarray
    after: np.ndarray
    levels: tuple[int, ...]
    words: str

    @property
    def quantiles(self) -> tuple[float, ...]:
        """(Q,), sorted."""
        return quantiles_of(self.levels)

    @property
    def difference(self) -> np.ndarray:
        """How far the median moves, (N, H)."""
        middle = self.before.shape[-1] // 2
        return np.asarray(self.after[..., middle] - self.before[..., middle])

    def frame(self, backend: str | None = None) -> Any:
        """One row for each series and step: id, time, each covariate as given and as changed, both forecasts with their
        bands, and the difference of their medians. backend: polars, pandas or pyarrow, None for the kind that came
        in."""
        schema = self.schema if backend is None else replace(self.schema, backend=backend)
        count, horizon = self.before.shape[:2]
        times = [self.panel.frequency.future(times[-1], horizon) for times in self.panel.times]
        columns = {
            self.schema.id: np.repeat(np.array(self.panel.ids, dtype=object), horizon),
            self.schema.time: np.concatenate(times),
        }
        for name, (given, changed) in self.columns.items():
            columns |= {f"{name}-given": given.reshape(-1), f"{name}-changed": changed.reshape(-1)}
        for name, made in ((self.model, self.before), (f"{self.model}-changed", self.after)):
            columns |= forecast_columns(name, made, self.quantiles, self.levels)
        return schema.frame(columns | {"difference": self.difference.reshape(count * horizon)})

    @property
    def sentence(self) -> str:
        """What the change does, over all series and steps."""
        middle = self.before.shape[-1] // 2
        before, after = (float(made[..., middle].sum()) for made in (self.before, self.after))
        moved = after - before
        said = self.words[:1].upper() + self.words[1:]
        if not np.abs(self.difference).max() > 0:
            return f"{said} the forecast stays as it is."
        size = f" ({abs(100 * moved / before):.1f} %)" if before > 0 else ""
        way = "more" if moved >= 0 else "less"
        steps = self.panel.frequency.many(self.before.shape[1])
        series = f" of {len(self.panel):,} series" if len(self.panel) > 1 else ""
        return (
            f"{said} the forecast of {steps}{series} adds up to {figure(abs(moved))} {way}{size}. It differs most "
            f"{self._most}."
        )

    @property
    def _most(self) -> str:
        """Where it differs most, and by how much."""
        difference = self.difference
        series, step = np.unravel_index(int(np.abs(difference).argmax()), difference.shape)
        time = self.panel.frequency.future(self.panel.times[series][-1], int(step) + 1)[-1]
        value = float(difference[series, step])
        whose = f" of {self.panel.ids[series]}" if len(self.panel) > 1 else ""
        return f"at {short_time(time)}{whose}, by {'−' if value < 0 else '+'}{figure(abs(value))}"


def what_if(
    forecaster: Forecasting, table: Table, changes: Mapping[str, Change], horizon: int, words: str = ""
) -> WhatIf:
    """The forecasts of a table as it is, and with other values of covariates known in advance.

    words: the changes as one says them, such as "without promo"; made up from them if empty. Raises OptionError for a
    column that is none or a value that does not fit, DataError where the covariates end before the horizon does."""
    check_reach(table.panel, horizon, forecaster.target_column)
    changed, columns = _changed(table.panel, changes, horizon)
    plain = replace(table, schema=replace(table.schema, backend="polars"))
    levels = tuple(sorted(forecaster.levels))
    model, before = _forecast(forecaster, plain, horizon, levels)
    _, after = _forecast(forecaster, replace(plain, panel=changed), horizon, levels)
    said = words or "with " + ", ".join(f"{name} {_words(change)}" for name, change in changes.items())
    return WhatIf(table.panel, table.schema, model, columns, before, after, levels, said)


def parse_changes(texts: Sequence[str]) -> dict[str, Change]:
    """What is typed after --set: "promo=0", "price=-10%", or "promo=0,0,1" with a value for each step.

    >>> parse_changes(["promo=0"]), parse_changes(["price=-10%"])["price"](np.array([20.0]))
    ({'promo': 0.0}, array([18.]))
    """
    found: dict[str, Change] = {}
    for text in texts:
        name, sign, value = text.rpartition("=")
        if not sign or not name:
            raise OptionError(
                f"--set takes COLUMN=VALUE, such as promo=0 or price=-10%, not {short_repr(text)}"
            )
        if name in found:
            raise OptionError(f"--set changes {name!r} twice; give each column once")
        found[name] = _parse_value(text, value)
    return found


def _parse_value(text: str, value: str) -> Change:
    def number(part: str) -> float:
        try:
            return float(part)
        except ValueError:
            raise OptionError(
                f"--set {text}: {part!r} is no number; give one such as 0, a change such as -10%, or one value for "
                "each step, separated by commas"
            ) from None

    if value.endswith("%"):
        return _Percent(number(value.removesuffix("%")))
    parts = [number(part) for part in value.split(",")]
    return parts[0] if len(parts) == 1 else parts


@dataclass(frozen=True)
class _Percent:
    """A change by some percent."""

    percent: float

    def __call__(self, values: np.ndarray) -> np.ndarray:
        return values * (1 + self.percent / 100)

    def __str__(self) -> str:
        return f"{abs(self.percent):g} % {'higher' if self.percent >= 0 else 'lower'}"


def _changed(
    panel: Panel, changes: Mapping[str, Change], horizon: int
) -> tuple[Panel, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """The panel with other values in the steps after its end, and those of each column, given and changed (N, H)."""
    if not changes:
        raise OptionError("nothing is changed; name a covariate and its value, such as promo=0")
    known = [column.copy() for column in panel.known]
    columns = {}
    for name, change in changes.items():
        _check_name(panel, name)
        place = panel.known_names.index(name)
        given, made = np.zeros((2, len(panel), horizon))
        for i, (column, y) in enumerate(zip(known, panel.y, strict=True)):
            ahead = slice(len(y), len(y) + horizon)
            given[i] = column[ahead, place]
            made[i] = column[ahead, place] = _values(name, change, given[i])
        columns[name] = given, made
    return replace(panel, known=tuple(known)), columns


def _check_name(panel: Panel, name: str) -> None:
    if name in panel.known_names:
        return
    there = ", ".join(panel.known_names)
    if not there:
        raise OptionError(
            f"{name!r} cannot be changed: the forecaster was given no covariate that is known in advance"
        )
    if name in panel.past_names:
        raise OptionError(
            f"{name!r} is known only up to the present, so it has no future to change; known in advance: {there}"
        )
    raise OptionError(f"there is no covariate {name!r}; known in advance: {there}")


def _values(name: str, change: Change, given: np.ndarray) -> np.ndarray:
    """The changed values (H,) of one series."""
    made = change(given.copy()) if callable(change) else change
    try:
        values = np.asarray(made, dtype=np.float64)
    except (TypeError, ValueError):
        values = np.array(np.nan)
    if values.shape not in ((), given.shape):
        raise OptionError(
            f"{name!r} needs one value, or one for each of the {len(given)} steps, not {values.size:,}"
        )
    if not np.isfinite(values).all() and np.isfinite(given).all():
        raise OptionError(f"{name!r} needs numbers, not {short_repr(made)}")
    return np.broadcast_to(values, given.shape)


def _forecast(
    forecaster: Forecasting, table: Table, horizon: int, levels: tuple[int, ...]
) -> tuple[str, np.ndarray]:
    """The name of the forecasts, and their quantiles (N, H, Q)."""
    made = forecaster.predict(table, horizon)
    name = str(made.columns[2])  # after the series' name and the time
    order = [f"{name}-lo-{level}" for level in sorted(levels, reverse=True)]
    order += [name, *(f"{name}-hi-{level}" for level in levels)]
    whole = np.stack([made[column].to_numpy() for column in order], axis=-1)
    return name, whole.reshape(len(table.panel), horizon, len(order))


def _words(change: Change) -> str:
    if isinstance(change, _Percent):
        return str(change)
    if callable(change):
        return "changed"
    return f"= {change:g}" if isinstance(change, int | float) else "changed"
