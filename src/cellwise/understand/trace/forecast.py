"""The page of a forecaster: the last steps of a series, the forecast after each of them, and what it rests on."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from cellwise._version import __version__
from cellwise.tasks.forecasting.calendar import with_calendar
from cellwise.tasks.forecasting.covariates import check_reach
from cellwise.tasks.forecasting.errors import SeriesTooShortError
from cellwise.tasks.forecasting.forecaster import Forecaster
from cellwise.tasks.forecasting.frames import Table
from cellwise.tasks.forecasting.influence import contributions, groups_of
from cellwise.tasks.forecasting.looks import suggestion
from cellwise.tasks.forecasting.member import Member
from cellwise.tasks.forecasting.network import ForecastNetwork
from cellwise.tasks.forecasting.panel import Panel
from cellwise.tasks.forecasting.postprocessing import Postprocessing
from cellwise.tasks.forecasting.scaling import Scaled, scale
from cellwise.tasks.forecasting.series import Series, prepare
from cellwise.tasks.forecasting.shown_times import short_time
from cellwise.tasks.forecasting.stretches import CONTEXT, Batch, PreparedSeries, collate
from cellwise.tasks.forecasting.what_if import what_if
from cellwise.tasks.member_cells import cells_of
from cellwise.tasks.shown import shown
from cellwise.tasks.training.loop import torch_threads
from cellwise.understand.trace.connectivity import input_gradients
from cellwise.understand.trace.errors import TraceError
from cellwise.understand.trace.page import Dependence, Page, TracedLayer, reach
from cellwise.understand.trace.recording import Recording, record

__all__ = ["ForecastTrace", "forecast_page", "trace_forecast"]

MOST_HORIZONS = 28  # of a longer horizon so many steps are looked into, evenly spaced
SHORTEST = 2
MOST_COVARIATES = 6  # of the user's are shown


@dataclass(frozen=True, eq=False)
class ForecastTrace:
    """The last C steps of a series, C at most the network's context, and the forecasts after each of them.

    filled (C,): what the network takes the series for, gaps closed, in units of y; observed (C,): bool;
    forecasts (C, H, Q); covariates: name -> values of the user's, those known in advance (C + H,), then the others
    (C,); horizons (K,): the steps of the horizon that are looked into, from 0; by_value (K, C, C): entry [k, s, t] is
    the derivative of the median k of step s with respect to the value of step t, units of y over units of y;
    by_input (K, C, C): the norm of the gradient of the network's answer with respect to the whole input of step t;
    by_covariate: name -> (K, C, C), the derivative with respect to a covariate of the user's at step t.
    """

    panel: Panel
    filled: np.ndarray
    observed: np.ndarray
    forecasts: np.ndarray
    covariates: dict[str, np.ndarray]
    horizons: tuple[int, ...]
    recordings: tuple[Recording, ...]
    by_value: Tensor
    by_input: Tensor
    by_covariate: dict[str, Tensor]


def trace_forecast(forecaster: Forecaster, table: Table, name: str | None = None) -> ForecastTrace:
    """Look into the forecasts of one series of a table, the first unless it is named.

    The derivatives go the whole way, through the level, the season and the spread that the scaling takes from the
    series. Held fixed is only the unit of a series that is not learned as logarithms.

    Raises:
        TraceError: there is no such series, or it is too short.
        DataError: covariates known in advance end before the horizon does.
    """
    network = forecaster.network_
    panel = _choose(table.panel, name)
    check_reach(panel, forecaster.horizon, forecaster.target_column)
    panel = with_calendar(panel, forecaster.calendar_, forecaster.horizon, network.context_length)
    with torch_threads(1):
        trace = _trace(network, panel, len(forecaster.calendar_))
    return _handed_out(forecaster, trace)


def _handed_out(forecaster: Forecaster, trace: ForecastTrace) -> ForecastTrace:
    """With the bands calibrated as those of `predict` are. A blend is left out: what is traced is the network."""
    C, panel = len(trace.filled), trace.panel
    cuts = panel.select([0] * C).cut(range(len(panel.y[0]) - C + 1, len(panel.y[0]) + 1))
    calibration = Postprocessing(None, forecaster._postprocessing.calibration)
    return replace(trace, forecasts=calibration.apply(cuts, trace.forecasts))


def _choose(panel: Panel, name: str | None) -> Panel:
    if name is not None and name not in panel.ids:
        some = ", ".join(shown(each, 60) for each in panel.ids[:5]) + (", …" if len(panel.ids) > 5 else "")
        raise TraceError(f"there is no series {name!r}; the data has {some}")
    chosen = panel.select([panel.ids.index(name) if name is not None else 0])
    if np.count_nonzero(~np.isnan(chosen.y[0])) < SHORTEST:
        raise SeriesTooShortError(
            f"series {chosen.ids[0]!r} has fewer than {SHORTEST} values; nothing can be traced"
        )
    return chosen


def _trace(network: ForecastNetwork, panel: Panel, num_calendar: int) -> ForecastTrace:
    config = network.config
    series = prepare(panel.y[0], config.season_length, config.typical_step).tail(network.context_length)
    batch = _batch(network, panel, series)
    look = _Look(network, batch)
    C, H = batch.past.shape[1], config.horizon
    middle = len(config.quantiles) // 2
    horizons = tuple(sorted(set(np.linspace(0, H - 1, min(H, MOST_HORIZONS)).round().astype(int).tolist())))
    members = [cast(Member, member) for member in network.members]
    inputs = look.inputs()
    recordings, answers, gradients = [], [], torch.zeros(len(horizons), C, C, inputs.shape[-1])

    def take(t: int, at_input: Tensor) -> None:
        gradients[:, t:, t] += at_input

    for member in members:
        recording = record(cast(Any, member.layer), inputs)
        recordings.append(recording)
        answer, seeds = _answer(member, recording.output, batch.known.transpose(0, 1), horizons, middle)
        answers.append(answer)
        input_gradients(recording, seeds / len(members), take)
    learned = (
        look.scaled.base[..., None]
        + torch.stack(answers).mean(0).double() * look.scaled.spread[:, None, None]
    )
    tail = slice(len(series.values) - C, None)
    filled = series.restore(series.filled[tail])
    return ForecastTrace(
        panel,
        filled,
        ~np.isnan(series.values[tail]),
        series.restore(learned.numpy()),
        _covariates(panel, num_calendar, C, H),
        horizons,
        tuple(recordings),
        look.by_value(series, learned[..., middle], gradients, horizons, filled),
        gradients.norm(dim=-1),
        look.by_covariate(series, learned[..., middle], gradients, horizons, panel, num_calendar),
    )


def _covariates(panel: Panel, num_calendar: int, context: int, horizon: int) -> dict[str, np.ndarray]:
    """The user's covariates over the context, those known in advance over the horizon too."""
    begin, end = len(panel.y[0]) - context, len(panel.y[0])
    known = {
        name: panel.known[0][begin : end + horizon, i]
        for i, name in enumerate(panel.known_names)
        if i >= num_calendar
    }
    return known | {name: panel.past[0][begin:end, i] for i, name in enumerate(panel.past_names)}


def _batch(network: ForecastNetwork, panel: Panel, series: Series) -> Batch:
    """The end of the series as the network is given it."""
    covariates, H = network.config.covariates, network.config.horizon
    end = len(panel.y[0])
    begin = end - len(series.values)
    source = PreparedSeries(
        series, covariates.known(panel.known[0][begin : end + H]), covariates.past(panel.past[0][begin:end])
    )
    return collate([source.cut(0, max(0, len(source) - CONTEXT), len(source), H)], H)


def _answer(
    member: Member, states: Tensor, known: Tensor, horizons: tuple[int, ...], middle: int
) -> tuple[Tensor, Tensor]:
    """Quantiles (C, H, Q) from states (C, hidden), and the gradients of the medians there, (K, C, hidden)."""
    with torch.enable_grad():
        states = states.clone().requires_grad_()
        answer = member.answer(states[:, None], known)[:, 0]
        # The answer of a step sees the state of that step alone, so the sum over steps mixes nothing.
        seeds = [
            torch.autograd.grad(answer[:, h, middle].sum(), states, retain_graph=True)[0] for h in horizons
        ]
    return answer.detach(), torch.stack(seeds)


class _Look:
    """What the scaling makes of the series, and how that changes with each value of the context."""

    def __init__(self, network: ForecastNetwork, batch: Batch) -> None:
        self.network, self.batch = network, batch
        self.context = batch.past.shape[1]
        with torch.no_grad():
            scaled = self._scale(batch.filled[0, -self.context :])
        self.scaled = Scaled(*scaled)

    def _scale(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From the context's values (C,), in learned units, to inputs (C, D), base (C, H), spread (C,)."""
        batch, config, C = self.batch, self.network.config, self.context
        filled = torch.cat([batch.filled[:, :-C], values[None]], dim=1)
        made = scale(
            filled, batch.observed, batch.linear, config.season_length, config.horizon, config.typical_step
        )
        return made.inputs[0, -C:], made.base[0, -C:], made.spread[0, -C:]

    def inputs(self) -> Tensor:
        """What the recurrent layer is given at each step, float32 (C, D)."""
        known = self.batch.known[0, : self.context]
        return torch.cat([self.scaled.inputs.float(), known, self.batch.past[0]], dim=-1)

    def by_value(
        self,
        series: Series,
        learned: Tensor,
        gradients: Tensor,
        horizons: tuple[int, ...],
        filled: np.ndarray,
    ) -> Tensor:
        """The derivative of each median with respect to each value of the context, in units of y, (K, C, C)."""
        C, places = self.context, list(horizons)
        own = self.batch.filled[0, -C:]
        size = max(1, 2**24 // (self.batch.filled.shape[1] * max(self.network.config.season_length, 24)))
        by_inputs, by_base, by_spread = torch.func.vmap(
            lambda direction: torch.func.jvp(self._scale, (own,), (direction,))[1],
            out_dims=-1,
            chunk_size=min(size, C),
        )(torch.eye(C, dtype=own.dtype))
        features = by_inputs.shape[1]
        spread, base = self.scaled.spread, self.scaled.base
        through = torch.einsum("kstd,tdv->ksv", gradients[..., :features].double(), by_inputs)
        answer = ((learned - base) / spread[:, None])[:, places].T  # (K, C)
        total = by_base[:, places].transpose(0, 1) + answer[..., None] * by_spread + spread[:, None] * through
        median = learned[:, places].T
        if series.logarithmic:
            return total * median.exp()[..., None] / torch.from_numpy(filled)
        return total * ((median > 0) | (not series.nonnegative))[..., None]

    def by_covariate(
        self,
        series: Series,
        learned: Tensor,
        gradients: Tensor,
        horizons: tuple[int, ...],
        panel: Panel,
        num_calendar: int,
    ) -> dict[str, Tensor]:
        """The derivative of each median with respect to each covariate of the user's at each step of the context, units
        of y over units of the covariate, (K, C, C)."""
        sizes, features = self.network.config.covariates, self.scaled.inputs.shape[1]
        median = learned[:, list(horizons)].T
        if series.logarithmic:
            unit = median.exp()
        else:
            unit = series.unit * ((median > 0) | (not series.nonnegative))
        moved = gradients.double() * (self.scaled.spread * unit)[..., None, None]
        columns = [
            (name, features + i, sizes.known_size[i])
            for i, name in enumerate(panel.known_names)
            if i >= num_calendar
        ]
        first = features + len(panel.known_names)
        columns += [(name, first + i, sizes.past_size[i]) for i, name in enumerate(panel.past_names)]
        return {name: moved[..., place] / size for name, place, size in columns}


def forecast_page(forecaster: Forecaster, table: Table, name: str | None = None) -> Page:
    """Trace the forecasts of one series and lay them out. Raises as `trace_forecast` does."""
    trace = trace_forecast(forecaster, table, name)
    panel, name_of_cells, C = trace.panel, forecaster.cell_name.upper(), len(trace.filled)
    times, many, several = panel.times[0][-C:], panel.frequency.many, len(table.panel) > 1
    blend = forecaster._postprocessing.blend
    near, far = (many(round(reach(trace.by_value, share))) for share in (0.5, 0.9))
    series = shown(panel.ids[0], 100)
    return Page(
        kind="forecast",
        title=f"{series}: inside the {name_of_cells} forecast",
        subtitle=f"The last {many(C)} of {series}, until {short_time(times[-1])}, as the network walks over them"
        + (f"; one of {len(table.panel):,} series." if several else "."),
        equations="\n\n".join(each.equations for each in dict.fromkeys(cells_of(forecaster.cell))),
        cell=name_of_cells,
        labels=[short_time(time) for time in times],
        layers=_layers(trace.recordings),
        targets=[f"{many(h + 1)} ahead" for h in trace.horizons],
        dependences=_dependences(trace),
        reader=_reader(trace, forecaster.horizon, max(forecaster.levels))
        | {"whatIfs": _what_ifs(forecaster, table, trace)},
        parts=_parts(forecaster, trace),
        start=C - 1,
        notes=[
            f"Half of what a forecast depends on lies, on average, within the last {near}, nine tenths within "
            f"the last {far}.",
            "The last step shows "
            + ("the forecast that predict gives" if blend is None else "the network's part of the forecast")
            + ". Those of earlier steps know only what lies between the left edge and their step, and the season and "
            "slope before it.",
            *([] if blend is None else [f"Traced is the network alone; {blend.note}."]),
        ],
        footer=_footer(forecaster),
    )


def _dependences(trace: ForecastTrace) -> list[Dependence]:
    by_value = Dependence(
        "each value",
        "How far the forecast moves when the value of one step is raised by one, all effects together: level, "
        "season and network.",
        trace.by_value,
        signed=True,
    )
    by_input = Dependence(
        "what the layer is given",
        "The norm of the gradient of the network's answer with respect to everything that the layer is given at a "
        "step: the window of values, slopes, calendar and covariates.",
        trace.by_input,
    )
    covariates = [
        Dependence(
            shown(name, 40),
            f"How far the forecast moves when {shown(name, 40)} of one step is raised by one, up to the step that is "
            "shown. What is known of the steps ahead works on top of that; see what if.",
            values,
            signed=True,
        )
        for name, values in list(trace.by_covariate.items())[:MOST_COVARIATES]
    ]
    return [by_value, by_input, *covariates]


def _parts(forecaster: Forecaster, trace: ForecastTrace) -> list[tuple[str, str]]:
    """The share of each part in the forecast after the last step; empty where the past is the only one."""
    groups = groups_of(trace.panel, forecaster.calendar_)
    if not groups:
        return []
    with torch_threads(1):
        found = contributions(forecaster.network_, trace.panel, groups, forecaster.horizon, forecaster.seed)
    rows = sorted(zip(found.names, found.shares, strict=True), key=lambda row: -row[1])
    return [(shown(name, 60), f"{share:.1f} %") for name, share in rows if math.isfinite(share)]


def _what_ifs(forecaster: Forecaster, table: Table, trace: ForecastTrace) -> list[dict[str, Any]]:
    """The forecast after the last step with each covariate changed that is known in advance."""
    panel = table.panel.select([table.panel.ids.index(trace.panel.ids[0])])
    made = []
    for name in panel.known_names[:MOST_COVARIATES]:
        change, words, _ = suggestion(forecaster, panel, name)
        one = what_if(forecaster, replace(table, panel=panel), {name: change}, forecaster.horizon, words)
        median = one.after[0, :, one.after.shape[-1] // 2]
        made.append({"words": shown(words, 60), "says": one.sentence, "median": [_number(v) for v in median]})
    return made


def _reader(trace: ForecastTrace, horizon: int, band: int) -> dict[str, Any]:
    """What the chart is drawn from: of the quantiles the lowest, the middle and the highest."""
    future = trace.panel.frequency.future(trace.panel.times[0][-1], horizon)
    banded = trace.forecasts[..., [0, trace.forecasts.shape[-1] // 2, -1]]
    values = [_number(value) for value in trace.filled]
    return {
        "y": [value if seen else None for value, seen in zip(values, trace.observed, strict=True)],
        "filled": values,
        "future": [short_time(time) for time in future],
        "forecasts": [[[_number(value) for value in step] for step in made] for made in banded],
        "horizons": [h + 1 for h in trace.horizons],
        "rows": [
            {"name": shown(name, 40), "values": [_number(value) for value in column]}
            for name, column in list(trace.covariates.items())[:MOST_COVARIATES]
        ],
        "band": band,
    }


def _layers(recordings: tuple[Recording, ...]) -> list[TracedLayer]:
    named = []
    for member, recording in enumerate(recordings, 1):
        for number, layer in enumerate(recording.layers, 1):
            parts = [f"network {member}"] * (len(recordings) > 1) + [f"layer {number}"] * (
                len(recording.layers) > 1
            )
            named.append(TracedLayer(", ".join(parts), layer))
    return named


def _number(value: float) -> float | None:
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _footer(forecaster: Forecaster) -> str:
    weights = sum(parameter.numel() for parameter in forecaster.network_.parameters())
    return f"cellwise {__version__}, torch {torch.__version__}; {weights:,} weights, seed {forecaster.seed}."
