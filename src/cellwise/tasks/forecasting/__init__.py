"""Time series: a recurrent network that forecasts, with bands."""

from cellwise.tasks.registry import Task

__all__ = ["TASK"]

TASK = Task(
    "forecast",
    "Forecast series with a recurrent network.",
    estimator="forecaster:Forecaster",
    options="options:ForecastOptions",
    fit_options="options:TestWindows",
)
