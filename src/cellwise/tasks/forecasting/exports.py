"""All that a run found out, as tables for a spreadsheet: forecast, scores, backtest, settings."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cellwise._version import __version__
from cellwise.tasks.data.files import round_floats, to_csv
from cellwise.tasks.data.optional import require
from cellwise.tasks.errors import DataError
from cellwise.tasks.forecasting.frames import FrameSchema
from cellwise.tasks.forecasting.output import backtest_frame, scores_frame
from cellwise.tasks.training.run_files import RunFolder

if TYPE_CHECKING:
    from cellwise.tasks.forecasting.forecaster import Forecaster

__all__ = ["forecast_of", "measured_tables", "tables_of", "write_tables"]


def forecast_of(
    forecaster: Forecaster, data: Any = None, horizon: int | None = None
) -> tuple[Any, FrameSchema]:
    """What `predict` gives, as a polars frame whatever was learned from, and the schema of its table."""
    table = forecaster.table_ if data is None else forecaster.read(data)
    schema = replace(table.schema, backend="polars")
    return forecaster.predict(replace(table, schema=schema), horizon), schema


def tables_of(forecaster: Forecaster) -> dict[str, Any]:
    """Polars frames by name: "forecast" (unless its known covariates end too soon), the scores "scores",
    "scores_by_series" and "scores_by_horizon" and the forecasts of the past "backtest" (if anything was held out),
    "settings".

    Names stand in them as they came in, one that begins with "=" too: they are joined with the person's own data."""
    tables = {}
    try:
        tables["forecast"] = forecast_of(forecaster)[0]
    except DataError:
        if not forecaster.table_.panel.known_names:
            raise
    forecasts = {name: round_floats(table) for name, table in tables.items()}
    return forecasts | measured_tables(forecaster) | {"settings": _settings(forecaster)}


def measured_tables(forecaster: Forecaster) -> dict[str, Any]:
    """Of these the "backtest" and the scores; none if nothing was held out."""
    backtest = forecaster.backtest_
    if backtest is None:
        return {}
    schema = replace(forecaster.table_.schema, backend="polars")
    tables = {
        "backtest": backtest_frame(backtest, schema, forecaster.column_name),
        "scores": scores_frame(backtest, schema),
        "scores_by_series": scores_frame(backtest, schema, "series"),
        "scores_by_horizon": scores_frame(backtest, schema, "horizon"),
    }
    return {name: round_floats(table) for name, table in tables.items()}


def write_tables(run: RunFolder, forecaster: Any) -> None:
    """Of a fitted `Forecaster`: write each table to the run folder, as forecast.csv, scores.csv, ..."""
    for name, table in tables_of(forecaster).items():
        run.write_text(f"{name}.csv", to_csv(table))


def _settings(forecaster: Forecaster) -> Any:
    """Options as they were given or left, and what the data settled."""
    panel = forecaster.table_.panel
    values = {
        **forecaster.get_params(),
        "cell": forecaster.cell_name,
        "frequency (found)": panel.frequency.name,
        "season length (found)": panel.frequency.season_length,
        "series": len(panel),
        "values": int(panel.lengths.sum()),
        "cellwise": __version__,
    }
    return require("polars").DataFrame(
        {"setting": list(values), "value": [_text(value) for value in values.values()]}
    )


def _text(value: Any) -> str:
    """A value as one types it: nothing for None, commas in a list."""
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return value if isinstance(value, str) else json.dumps(value, default=str)
