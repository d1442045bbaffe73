"""The section of a forecast's report on what it looks at."""

from __future__ import annotations

import numpy as np

from cellwise.tasks.forecasting.influence import CALENDAR, PAST
from cellwise.tasks.forecasting.influence_plots import growth_plot, lags_plot, shares_plot, what_if_plot
from cellwise.tasks.forecasting.looks import Fitted, Looks, looks_of, suggested_what_if
from cellwise.tasks.forecasting.what_if import WhatIf
from cellwise.tasks.report.page import Chart, Section

__all__ = ["looks_sections"]

LITTLE = 1.0  # percent: an error that grows by less does not need what was taken away


def looks_sections(forecaster: Fitted) -> tuple[Section, ...]:
    """What the forecasts rest on, and a what-if where covariates are known in advance."""
    looks = looks_of(forecaster, forecaster.table_, measured=True)
    charts = (*_growth_chart(looks), *_shares_chart(looks, forecaster), *_lags_chart(looks, forecaster))
    found = suggested_what_if(forecaster, looks)
    sections = []
    if charts:
        sections.append(
            Section(
                "What it looks at", _text(looks, forecaster), charts=charts, note=_note(looks, forecaster)
            )
        )
    if found is not None:
        sections.append(_what_if_section(*found))
    return tuple(sections)


def _text(looks: Looks, forecaster: Fitted) -> str:
    """Which covariates matter, and which do not."""
    many, text = forecaster.table_.panel.frequency.many, []
    matter = [each for each in looks.growth if each.percent >= LITTLE]
    if matter:
        named = [f"{each.percent:.0f} % without {_name(each.group.name)}" for each in matter[:4]]
        text.append(f"The error grows by {_listed(named)}.")
    idle = [_name(each.group.name) for each in looks.growth if each.percent < LITTLE]
    if idle:
        text.append(f"It does as well without {_listed(idle, 'or')}.")
    if looks.lags:
        reach = np.cumsum([each.moved for each in looks.lags])
        near = looks.lags[int((reach >= reach[-1] / 2).argmax())]
        text.append(f"About half of what the past tells it lies in the last {many(near.last)}.")
    return " ".join(text)


def _note(looks: Looks, forecaster: Fitted) -> str:
    blend = forecaster._postprocessing.blend
    alone = "" if blend is None else f"This is the network alone: {blend.note}. "
    if not looks.growth:
        return alone.strip()
    return alone + (
        "Without: the column tells of another time, and the error on what was held out is measured again (permutation "
        "importance, Breiman 2001). An influence on the forecast is not a cause of what happens."
    )


def _growth_chart(looks: Looks) -> tuple[Chart, ...]:
    if len(looks.growth) < 2:  # the sentence says it
        return ()
    caption = (
        "How much the error on what was held out grows when each tells of another time; the lines reach from the least "
        "to the most of several tries."
    )
    return (Chart("influence", growth_plot(looks.growth), caption),)


def _shares_chart(looks: Looks, forecaster: Fitted) -> tuple[Chart, ...]:
    parts = looks.parts
    if parts is None or len(parts.names) < 2 or not np.isfinite(parts.shares).all():
        return ()
    steps = forecaster.table_.panel.frequency.many(forecaster.horizon)
    which = f"the next {steps}" if looks.is_future else f"the last {steps} that the covariates cover"
    caption = (
        f"What the forecast of {which} is made of: the share of each part in all that moves it away from the level of "
        "the last season (Shapley values)."
    )
    return (Chart("shares", shares_plot(parts.names, parts.shares), caption),)


def _lags_chart(looks: Looks, forecaster: Fitted) -> tuple[Chart, ...]:
    if len(looks.lags) < 2:
        return ()
    words = forecaster.table_.panel.frequency.words
    caption = (
        "Which values of the past matter: how far the forecast moves when they are missing, in percent of its mean "
        "error, for each value of the block."
    )
    unit = f"{words}s" if " " not in words else f"steps of {words}"
    return (Chart("lags", lags_plot(looks.lags, unit), caption),)


def _what_if_section(found: WhatIf, is_future: bool) -> Section:
    panel = found.panel
    future = panel.frequency.future(panel.times[0][-1], found.before.shape[1])
    arguments = (found, panel.times[0], panel.y[0], future, panel.ids[0])
    caption = f"Blue: the forecast with its {max(found.levels)} % band; orange: the same {found.words}."
    if not is_future:
        caption += " These are the last steps that the covariates cover."
    chart = Chart("what-if", what_if_plot(*arguments), caption, narrow=what_if_plot(*arguments, narrow=True))
    note = (
        "It tells what the network expects, as it has learned it from the past, not what caused what. Others: "
        "cellwise forecast explain RUN --set COLUMN=VALUE."
    )
    words = found.words
    return Section(f"What if: {words}", found.sentence, lead=chart, note=note)


def _name(name: str) -> str:
    return {PAST: "the past", CALENDAR: "the calendar"}.get(name, name)


def _listed(words: list[str], last: str = "and") -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} {last} {words[-1]}"
