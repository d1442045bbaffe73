"""How a person's data are laid out: which column is what, which axis is time, how text is written."""

from __future__ import annotations

from dataclasses import dataclass, field

from cellwise.tasks.classify.examples import Channel
from cellwise.tasks.data.encoding import check_encoding
from cellwise.tasks.errors import OptionError

__all__ = ["LAYOUTS", "MISSING", "Columns", "Schema"]

# N series, T steps, C channels
LAYOUTS = ("ntc", "nct")
MISSING = ("refuse", "carry")


@dataclass(frozen=True)
class Schema:
    """What a trained network reads: the kind of its examples, and the channels of series."""

    kind: str
    channels: tuple[Channel, ...] = ()


@dataclass(frozen=True)
class Columns:
    """text, label, series, step: names of columns. channels: those of the values; all others, if there are none here.

    layout: of arrays: "ntc" or "nct". missing: "refuse" missing values, or "carry" the last one forward. encoding,
    decimal: how text is written, where that is open. learned: what a trained network reads."""

    text: str = "text"
    label: str = "label"
    series: str = "series"
    step: str = "step"
    channels: tuple[str, ...] = ()
    layout: str | None = None
    missing: str = "refuse"
    encoding: str | None = None
    decimal: str | None = None
    learned: Schema | None = field(default=None)

    def __post_init__(self) -> None:
        named = [self.text, self.label, self.series, self.step, *self.channels]
        twice = sorted({name for name in named if named.count(name) > 1})
        if twice:
            raise OptionError(f"column {twice[0]!r} is given two meanings; each column has one")
        check_encoding(self.encoding)
