"""The scores of a backtest as tables and as a sentence, for a page or a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cellwise.tasks.forecasting.backtest import Backtest
from cellwise.tasks.forecasting.metrics import Scores, mean, table_metrics
from cellwise.tasks.forecasting.naive import NAIVE_NAME
from cellwise.tasks.report.table import ReportTable, TableCell, TableRow, figure

__all__ = ["scores_table", "series_table", "verdict"]

MOST_ROWS = 20


def scores_table(scores: Mapping[str, Scores], levels: Sequence[int]) -> ReportTable:
    """The table of the models; the smaller error wins, and the coverage nearer to what the band promises."""
    columns = table_metrics(levels)
    goals = {f"coverage {level}": float(level) for level in levels}
    distance = {c: {m: abs(s.overall[c] - goals.get(c, 0.0)) for m, s in scores.items()} for c in columns}
    rows = tuple(
        TableRow(
            m,
            tuple(
                TableCell(_shown(c, s.overall[c]), distance[c][m] <= min(distance[c].values()))
                for c in columns
            ),
        )
        for m, s in scores.items()
    )
    return ReportTable("model", tuple(_heading(c) for c in columns), rows)


def series_table(scores: Mapping[str, Scores], backtest: Backtest) -> tuple[ReportTable, str]:
    """One row per series from the best forecast to the worst, at most MOST_ROWS; and a sentence on which they are."""
    own, naive = scores[backtest.model].by_series, scores[NAIVE_NAME].by_series
    order = [int(i) for i in np.argsort(own["MASE"]) if np.isfinite(own["MASE"][i])]
    note = "From the best forecast to the worst, by MASE."
    if len(order) > MOST_ROWS:
        half = MOST_ROWS // 2
        note = f"The {half} best and the {half} worst forecasts of {len(order):,} series, by MASE."
        order = order[:half] + order[-half:]
    rows: list[TableRow] = []
    for i in order:
        wins = own["MASE"][i] <= naive["MASE"][i]
        cells = [TableCell(figure(own[metric][i])) for metric in ("MAE", "sMAPE")]
        cells += [TableCell(figure(own["MASE"][i]), wins), TableCell(figure(naive["MASE"][i]), not wins)]
        rows.append(TableRow(backtest.panel.ids[i], tuple(cells)))
    if len(rows) == MOST_ROWS < len(backtest.panel):
        rows.insert(MOST_ROWS // 2, TableRow("…", tuple(TableCell("") for _ in cells)))
    return ReportTable("series", ("MAE", "sMAPE", "MASE", "naive MASE"), tuple(rows)), note


def verdict(scores: Mapping[str, Scores], backtest: Backtest) -> tuple[str, bool]:
    """One sentence on who is better, and where that does not hold; and whether the model is."""
    own, naive = scores[backtest.model], scores[NAIVE_NAME]
    change = 100 * (1 - own.overall["MAE"] / naive.overall["MAE"]) if naive.overall["MAE"] else 0.0
    better = change > 0
    text = (
        f"{backtest.model} errs by {figure(own.overall['MAE'])} on average, the seasonal naive forecast by "
        f"{figure(naive.overall['MAE'])}: {abs(change):.0f} % {'less' if better else 'more'}."
    )
    behind = [m for m in ("MAE", "RMSE", "sMAPE", "MASE", "pinball") if own.overall[m] > naive.overall[m]]
    if better and behind:
        text += f" It is worse by {', '.join(behind)}."
    worse = own.by_horizon["MAE"] > naive.by_horizon["MAE"]
    if better and worse.any():
        text += f" At {int(worse.sum())} of {len(worse)} steps of the horizon the naive forecast is better."
    windows = {
        name: mean(np.abs(backtest.y - _median(backtest, name)), axis=2) for name in backtest.forecasts
    }
    lost_windows = int((windows[backtest.model] > windows[NAIVE_NAME]).sum())
    if better and backtest.count > 1 and lost_windows:
        text += f" In {lost_windows} of {backtest.count:,} windows the naive forecast is better."
    lost = own.by_series["MASE"] > naive.by_series["MASE"]
    if better and len(lost) > 1 and lost.any():
        measured = int(np.isfinite(own.by_series["MASE"]).sum())
        text += f" For {int(lost.sum())} of {measured} series the naive forecast is better."
    return text, better


def _median(backtest: Backtest, name: str) -> np.ndarray:
    return backtest.forecasts[name][..., backtest.quantiles.index(0.5)]


def _heading(metric: str) -> str:
    return f"{metric} %" if metric.startswith("coverage") else metric


def _shown(metric: str, value: float) -> str:
    return f"{value:.1f}" if metric.startswith("coverage") and np.isfinite(value) else figure(value)
