"""Colours and sizes of diagrams; each role has its colour, on light paper and on dark."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

__all__ = ["ROLE_COLOURS", "ROLE_WORDS", "RULES", "STYLE", "Rule"]

Rule = Mapping[str, str]

# role -> fill and border on light paper, fill and border on dark
ROLE_COLOURS = {
    "forget": ("#fde0dc", "#c5402f", "#4a1f1a", "#ff8a7a"),
    "input": ("#dcf2e0", "#2b8a45", "#173a20", "#6fd58a"),
    "output": ("#dceafd", "#2b66c0", "#172c4d", "#7fb2ff"),
    "update": ("#ece2fa", "#7a45c4", "#33214f", "#c09bff"),
    "reset": ("#fdebd2", "#b8720f", "#46300f", "#f5b65a"),
    "candidate": ("#fdf6cf", "#95820b", "#3b350e", "#e3cf4b"),
    "other": ("#eceff2", "#66717d", "#2a3038", "#9aa6b2"),
}
# The role as a word beside a gate's name.
ROLE_WORDS = {role: role for role in ROLE_COLOURS} | {"other": "gate"}

# Everything stands below one class, so that a picture inside a page leaves the page as it is.
_RULES = """
.cellwise { color: #1d2329; --paper: #ffffff; --operation: #f3f5f7; }
.cellwise text { fill: currentColor;
  font-family: "Helvetica Neue", Helvetica, Arial, "DejaVu Sans", sans-serif; font-size: 15px;
  text-anchor: middle; dominant-baseline: central; }
.cellwise .paper { fill: var(--paper); }
.cellwise .line { fill: none; stroke: currentColor; stroke-width: 1.6; stroke-linejoin: round; }
.cellwise .rail { stroke-width: 3; }
.cellwise .under { fill: none; stroke: var(--paper); stroke-width: 7; }
.cellwise .head, .cellwise .dot { fill: currentColor; stroke: none; }
.cellwise .operation { fill: var(--operation); stroke: currentColor; stroke-width: 1.4; }
.cellwise .end { font-size: 18px; font-style: italic; font-family: Georgia, "Times New Roman", "DejaVu Serif", serif; }
.cellwise .name { font-weight: bold; font-style: italic; font-family: Georgia, "Times New Roman", "DejaVu Serif", serif;
  font-size: 17px; }
.cellwise .role { font-size: 12px; }
.cellwise .small { font-size: 11px; opacity: 0.75; }
.cellwise .index { font-size: 70%; }
.cellwise .cellname { font-weight: bold; font-size: 17px; }
.cellwise .cell { fill: var(--operation); stroke: currentColor; stroke-width: 1.6; }
"""


def _roles(light: bool) -> str:
    return "\n".join(
        f".cellwise .{role} {{ fill: {fill}; stroke: {border}; stroke-width: 1.8; }}"
        for role, colours in ROLE_COLOURS.items()
        for fill, border in [colours[:2] if light else colours[2:]]
    )


STYLE = f"""{_RULES}{_roles(True)}
@media (prefers-color-scheme: dark) {{
.cellwise {{ color: #e4e9ee; --paper: #12161b; --operation: #252c34; }}
{_roles(False)}
}}
"""


def _read(rules: str) -> Iterator[tuple[str, dict[str, str]]]:
    for selectors, body in re.findall(r"([^{}]+)\{([^}]*)\}", rules):
        pairs = (each.partition(":") for each in body.split(";") if each.strip())
        rule = {name.strip(): value.strip() for name, _, value in pairs}
        for selector in selectors.split(","):
            yield selector.strip().removeprefix(".cellwise").strip().removeprefix("."), rule


# The rules on light paper by class, "" for the whole picture: for those who draw it without a browser.
RULES: dict[str, Rule] = dict(_read(_RULES + _roles(True)))
