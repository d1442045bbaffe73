"""The scores of a backtest as tables and as a sentence, for a page or a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from cellwise.tasks.forecasting.backtest import Backtest
from cellwise.tasks.forecasting.blend import is_network
from cellwise.tasks.forecasting.metrics import Scores, mean, table_metrics
from cellwise.tasks.forecasting.naive import NAIVE_NAME
from cellwise.tasks.report.table import ReportTable, TableCell, TableRow, figure

__all__ = ["Verdict", "judge", "scores_table", "series_table", "verdict"]

MOST_ROWS = 20
MOST_SIMPLE = 4  # of the simple methods, in the table
ALARMING = 10.0  # percent by which a model may err more than the best simple method, before that is a warning
EQUAL = 0.5  # percent that are no difference
SKILL = "skill %"
UNITS = {"pinball", "interval"}  # shown in units of the scale where the units of the series differ


@dataclass(frozen=True)
class Verdict:
    """How a model does beside the best simple method on the same windows.

    metric: of error and best_error; skill: percent by which the model errs less than the best simple method, negative
    where it errs more, NaN if unknown; is_ahead: whether it errs less, or as much; is_alarming: whether it errs so much
    more than a simple method that one could have known to take instead that it should not be used; text: all that in
    plain sentences."""

    model: str
    best_simple: str
    metric: str
    error: float
    best_error: float
    skill: float
    is_ahead: bool
    is_alarming: bool
    text: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, numbers that are none as None."""
        return {
            k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in asdict(self).items()
        }


def scores_table(scores: Mapping[str, Scores], levels: Sequence[int]) -> ReportTable:
    """The table of the first model and the best simple methods, the best first; of a column, the smaller error wins,
    and the coverage nearer to what the band promises.

    For several series all columns are free of units: a mean of errors over unlike series says nothing. The skill is the
    percentage by which a model errs less than the best simple method, by MAE or, for several series, by MASE."""
    several = len(next(iter(scores.values())).by_series["MASE"]) > 1
    by = "MASE" if several else "MAE"
    chosen = _chosen(scores, by)
    columns = _columns(levels, several, len(chosen) > 1)
    best = scores[chosen[1]].overall[by] if len(chosen) > 1 else float("nan")
    goals = {f"coverage {level}": float(level) for level in levels}

    def value(model: str, column: str) -> float:
        overall = scores[model].overall
        return _skill(overall[by], best) if column == SKILL else overall[column]

    def distance(model: str, column: str) -> float:
        found = value(model, column)
        return -found if column == SKILL else abs(found - goals.get(column, 0.0))

    nearest = {c: min(distance(m, c) for m in chosen) for c in columns}
    rows = tuple(
        TableRow(m, tuple(TableCell(_shown(c, value(m, c)), distance(m, c) <= nearest[c]) for c in columns))
        for m in chosen
    )
    return ReportTable("model", tuple(_heading(c) for c in columns), rows)


def _columns(levels: Sequence[int], several: bool, compared: bool) -> tuple[str, ...]:
    """The metrics of the table, errors first, then the skill if there is a simple method, then the bands'."""
    columns = [c for c in table_metrics(levels) if not several or c not in ("MAE", "RMSE")]
    if several:
        columns = [f"scaled {c}" if c.split()[0] in UNITS else c for c in columns]
    if compared:
        columns.insert(next(i for i, c in enumerate(columns) if c.endswith("pinball")) + 1, SKILL)
    return tuple(columns)


def _chosen(scores: Mapping[str, Scores], by: str) -> list[str]:
    """The first model, the best of the others, and the seasonal naive forecast."""
    own, *simple = scores
    simple.sort(key=lambda name: np.nan_to_num(scores[name].overall[by], nan=np.inf))
    naive = [NAIVE_NAME] if NAIVE_NAME in simple[MOST_SIMPLE:] else []
    return [own, *simple[:MOST_SIMPLE], *naive]


def series_table(scores: Mapping[str, Scores], backtest: Backtest) -> tuple[ReportTable, str]:
    """One row per series from the best forecast to the worst, at most MOST_ROWS; and a sentence on which they are."""
    best = backtest.simple[0]
    own, simple = scores[backtest.model].by_series, scores[best].by_series
    order = [int(i) for i in np.argsort(own["MASE"]) if np.isfinite(own["MASE"][i])]
    note = "From the best forecast to the worst, by MASE."
    if len(order) > MOST_ROWS:
        half = MOST_ROWS // 2
        note = f"The {half} best and the {half} worst forecasts of {len(order):,} series, by MASE."
        order = order[:half] + order[-half:]
    rows: list[TableRow] = []
    for i in order:
        wins = own["MASE"][i] <= simple["MASE"][i]
        cells = [TableCell(figure(own[metric][i])) for metric in ("MAE", "sMAPE")]
        cells += [TableCell(figure(own["MASE"][i]), wins), TableCell(figure(simple["MASE"][i]), not wins)]
        rows.append(TableRow(backtest.panel.ids[i], tuple(cells)))
    if len(rows) == MOST_ROWS < len(backtest.panel):
        rows.insert(MOST_ROWS // 2, TableRow("…", tuple(TableCell("") for _ in cells)))
    return ReportTable("series", ("MAE", "sMAPE", "MASE", f"MASE of {best}"), tuple(rows)), note


def verdict(scores: Mapping[str, Scores], backtest: Backtest) -> tuple[str, bool]:
    """The text of `judge`, and whether the model is ahead."""
    found = judge(scores, backtest)
    return found.text, found.is_ahead


def judge(scores: Mapping[str, Scores], backtest: Backtest) -> Verdict:
    """Compare the model with the best of the simple methods, chosen on the very windows that are measured: so it is
    the hardest comparison, not the kindest.

    On few windows one of ten methods is better by luck. So a mean with a simple method, which was chosen before these
    windows, alarms only beside that method and the seasonal naive forecast, which one could have known to take."""
    model, best, metric = backtest.model, backtest.simple[0], backtest.metric
    own, simple = scores[model], scores[best]
    error, best_error = own.overall[metric], simple.overall[metric]
    skill = _skill(error, best_error)
    ahead = not skill < -EQUAL
    partner = next((name for name in backtest.simple if model.endswith(f"+{name}")), None)
    if np.isnan(skill):
        text = f"Nothing can be compared: {model} has a {metric} of {figure(error)}, {best} of {figure(best_error)}."
    elif not ahead:
        more = f"errs {-skill:.0f} % more than {best}" if np.isfinite(skill) else f"errs, {best} does not"
        advice = ": use --best or --ensemble" if is_network(model) else ""
        text = f"{model} {more}{advice}." + _figures(metric, error, best_error)
        if partner not in (None, best):
            text += _beforehand(backtest, partner, _skill(error, scores[partner].overall[metric]))
    else:
        share = f"{skill:.0f} % less than" if skill > EQUAL else "as much as"
        text = f"{model} errs {share} the best simple method, {best}." + _figures(metric, error, best_error)
        text += _exceptions(own, simple, backtest, best)
    rivals = [best] if partner is None else [name for name in (partner, NAIVE_NAME) if name in scores]
    alarming = any(_skill(error, scores[name].overall[metric]) < -ALARMING for name in rivals)
    return Verdict(model, best, metric, error, best_error, skill, ahead, alarming, text)


def _beforehand(backtest: Backtest, partner: str, skill: float) -> str:
    """Beside the simple method that had been chosen before."""
    if not np.isfinite(skill):
        return ""
    share = "as much as"
    if abs(skill) > EQUAL:
        share = f"{abs(skill):.0f} % {'less' if skill > 0 else 'more'} than"
    best, count = backtest.simple[0], len(backtest.simple)
    return (
        f" {best} is the best of {count} in hindsight; before these windows {partner} was, and {backtest.model} errs "
        f"{share} {partner}."
    )


def _figures(metric: str, error: float, best_error: float) -> str:
    return f" Their {metric}: {figure(error)} and {figure(best_error)}."


def _exceptions(own: Scores, simple: Scores, backtest: Backtest, best: str) -> str:
    """Where a model that is ahead is not: by other metrics, early or late, in some windows, for some series."""
    text = ""
    behind = [m for m in ("RMSE", "sMAPE", "pinball") if own.overall[m] > simple.overall[m]]
    if len(backtest.panel) > 1:  # their units may differ
        behind = [m for m in behind if m == "sMAPE"]
        behind += ["pinball"] if own.overall["scaled pinball"] > simple.overall["scaled pinball"] else []
    if behind:
        text += f" It is worse by {' and '.join(behind)}."
    metric = backtest.metric
    worse = own.by_horizon[metric] > simple.by_horizon[metric]
    if worse.any():
        text += f" At {int(worse.sum())} of {len(worse)} steps of the horizon {best} is better."
    errors = {
        name: mean(np.abs(backtest.y - _median(backtest, name)), axis=2) for name in (backtest.model, best)
    }
    lost_windows = int((errors[backtest.model] > errors[best]).sum())
    if backtest.count > 1 and lost_windows:
        text += f" In {lost_windows} of {backtest.count:,} windows {best} is better."
    lost = own.by_series["MASE"] > simple.by_series["MASE"]
    if len(lost) > 1 and lost.any():
        measured = int(np.isfinite(own.by_series["MASE"]).sum())
        text += f" For {int(lost.sum())} of {measured} series {best} is better."
    return text


def _skill(error: float, other: float) -> float:
    """Percent by which an error is smaller than another: NaN if either is unknown, -inf if the other alone is 0."""
    if error == other:
        return 0.0
    return 100 * (1 - error / other) if other > 0 else -float("inf") if other == 0 else float("nan")


def _median(backtest: Backtest, name: str) -> np.ndarray:
    return backtest.forecasts[name][..., backtest.quantiles.index(0.5)]


def _heading(metric: str) -> str:
    return f"{metric} %" if metric.startswith("coverage") else metric


def _shown(metric: str, value: float) -> str:
    if metric == SKILL and np.isfinite(value):
        return f"{value:+.0f}" if abs(value) >= EQUAL else "0"
    return f"{value:.1f}" if metric.startswith("coverage") and np.isfinite(value) else figure(value)
