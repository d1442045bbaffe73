"""A run's report: one HTML page that needs no network, in sections of text, charts and tables.

A task supplies its sentences, charts and tables as a `Page`. The style, and the escaping of every text, are here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cellwise.tasks.data.optional import require
from cellwise.tasks.report.charts import COLOURS, page_svg
from cellwise.tasks.report.settings import Setting, SettingGroup, setting_text
from cellwise.tasks.report.table import ReportTable
from cellwise.tasks.shown import shown
from cellwise.tasks.training.run_files import PLOTS, REPORT, RunFolder

__all__ = ["Chart", "Page", "Section", "Sound", "attempt", "render", "write_page"]

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Chart:
    """A chart: the name of its file in plots/, without an ending; SVG text, as `charts.chart` makes it; its caption.

    narrow: another drawing of it for a narrow page, where there is one."""

    name: str
    svg: str
    caption: str
    narrow: str = ""


@dataclass(frozen=True)
class Sound:
    """A recording that the page can play: a `data:audio/` address, and its caption."""

    address: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A heading, then what there is of: a sentence, charts, a table, recordings, a note on them, and words with what
    they mean.

    Charts stand side by side where there is room for them; `lead` stands above them, in full width."""

    title: str
    text: str = ""
    lead: Chart | None = None
    charts: tuple[Chart, ...] = ()
    table: ReportTable | None = None
    note: str = ""
    terms: tuple[tuple[str, str], ...] = ()
    sounds: tuple[Sound, ...] = ()

    @property
    def drawn(self) -> tuple[Chart, ...]:
        """All its charts."""
        return self.charts if self.lead is None else (self.lead, *self.charts)


@dataclass(frozen=True)
class Page:
    """All that a report says, in plain text; a note is a sentence without its full stop.

    verdict: the one sentence to take home. is_ahead: whether it is good news, which decides its colour.
    settings: each option of the estimator with its value, as groups (`settings.setting_groups`) or by name; None means
    that the estimator chose.
    """

    title: str
    subtitle: str
    verdict: str = ""
    is_ahead: bool = True
    sections: tuple[Section, ...] = ()
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] | tuple[SettingGroup, ...] = field(default_factory=dict)
    footer: str = ""

    @property
    def setting_groups(self) -> tuple[SettingGroup, ...]:
        """The settings, in groups."""
        if isinstance(self.settings, Mapping):
            return (SettingGroup("", tuple(Setting(*each) for each in self.settings.items())),)
        return self.settings


def attempt(write: Callable[[], None], again: str) -> str | None:
    """Write a report. None, or a sentence on why it could not be made; `again` is the command that makes it again.

    A training may have taken days and its report is made last, so no fault of a report ends it."""
    try:
        write()
    except Exception as error:  # noqa: BLE001 (whatever it is: drawing goes through much that is not ours)
        reason = shown(f"{type(error).__name__}: {error}".partition("\n")[0], 200)
        return (
            f"the run is finished, but its report could not be made ({reason}); make it again with: {again}"
        )
    return None


def write_page(run: RunFolder, page: Page) -> None:
    """Write report.html into a run folder, and each chart as plots/NAME.svg."""
    for section in page.sections:
        for chart in section.drawn:
            run.write_text(f"{PLOTS}/{chart.name}.svg", chart.svg)
    run.write_text(REPORT, render(page))


def render(page: Page) -> str:
    """The page as HTML. Raises TaskError if jinja2 is not installed."""
    jinja2 = require("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=_visible,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"page_svg": page_svg, "sentence": _sentence, "setting": setting_text}
    return str(environment.get_template("page.html").render(page=page, colours=COLOURS))


def _visible(value: Any) -> Any:
    """What stands in the page by itself: plain text without what cannot be seen. (What is HTML already is Markup.)"""
    return shown(value) if type(value) is str else value


def _sentence(note: str) -> str:
    return note[:1].upper() + note[1:] + "."
