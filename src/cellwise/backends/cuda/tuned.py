"""Layouts that were measured to be faster than those of the rules (`layout.py`).

`tuned.csv` has them for some devices; what `cellwise bench --tune` finds on a machine lies in the cache of kernels and
goes first. Both hold plain words and numbers, and name a layout that is only taken if it is among those that a
measurement tries: a file that says anything else changes nothing.
"""

from __future__ import annotations

import csv
from dataclasses import fields, replace
from functools import cache
from importlib.resources import files

from cellwise.backends.compiled.cache import keep, recall
from cellwise.backends.cuda.layout import (
    ALONE,
    BY_CUBLAS,
    Device,
    Form,
    Layout,
    by_rules,
    holding,
    is_backward,
    knows_rows,
    loads_of,
)
from cellwise.backends.cuda.machine import Machine
from cellwise.backends.cuda.products import products_of
from cellwise.plan.program import Program

TABLE = "tuned.csv"
TUNED = ("wide", *ALONE)  # kinds of layouts that are measured
_SUFFIX = ".layout"
_NUMBERS = tuple(field.name for field in fields(Layout) if field.name != "kind")
_MOST = 4096  # of any number

# What `variants` tries: reads of 16 bytes under way, cycles before the first look, steps that are read ahead.
_CHUNKS, _HOLDS, _AHEAD = (1, 2, 4, 8), (0, 200, 400, 500, 600, 700, 800, 900, 1000, 1200), (4, 8, 16)

# What this process has read or found; None where nothing was.
_KNOWN: dict[tuple[Device, str, str], Layout | None] = {}

_CHANGES: list[str] = []


def alternatives(program: Program, form: Form, batch: int, device: Device) -> list[Layout]:
    """The layouts that may suit a call: that of the rules first, then others that hold its weights."""
    first = by_rules(program, form, batch, device)
    products = [product for stage in program.stages for product in products_of(stage)]
    if first.kind in ("solo", "narrow"):
        return [first, replace(first, kind="narrow" if first.kind == "solo" else "solo")]
    if first.kind == "lanes":
        return [first, *[replace(first, tiles=rows) for rows in (1, 2, 4) if rows != first.tiles]]
    if first.kind != "wide" or not products:
        return [first]
    wide = holding(program, form, batch, device)
    fitting = [layout for layout in wide if layout.rows <= 2 * first.rows]
    return [first, *[layout for layout in fitting if layout != first]]


def variants(program: Program, form: Form, layout: Layout) -> tuple[list[Layout], list[Layout]]:
    """The same with other reads under way, and with other holds."""
    if layout.kind in BY_CUBLAS:
        return [], []
    if layout.kind != "wide":
        return [replace(layout, ahead=each) for each in _AHEAD], []
    products = [product for stage in program.stages for product in products_of(stage)]
    most = max((loads_of(product, form, layout) for product in products), default=1)
    chunks = [each for each in _CHUNKS if each <= most]
    return [replace(layout, chunk=each) for each in chunks], [replace(layout, hold=each) for each in _HOLDS]


def changes() -> int:
    """Counts up when what is known changes: kernels that were chosen before are then chosen anew."""
    return len(_CHANGES)


def call_of(program: Program, form: Form, batch: int) -> str:
    """What a layout was measured for, in words: the sizes, the recurrent products of a step, reductions over units."""
    products = [
        f"{len(each.accumulators)}x{len(each.columns)}"
        for stage in program.stages
        for each in products_of(stage)
    ]
    way = "backward" if is_backward(program) else "forward"
    sizes = f"H={form.hidden} B={batch} products={'+'.join(products) or 'none'}"
    sizes += " rows=whole" if knows_rows(program) else ""
    return f"{way} {form.number.product} {form.number.bytes * 8} {sizes}"


def tuned(program: Program, form: Form, batch: int, machine: Machine) -> Layout | None:
    """The layout that was measured for such calls on such a device, if any was and it can run them."""
    device, call = machine.device, call_of(program, form, batch)
    key = device, machine.name, call
    if key not in _KNOWN:
        content = recall(_named(machine.name, call), _SUFFIX)
        text = (
            _table().get((f"{device.architecture} {device.multiprocessors}", call))
            if content is None
            else content.decode("ascii", errors="replace")
        )
        layout = None if text is None else parse(text)
        is_known = layout is not None and _is_tried(layout, program, form, batch, machine)
        _KNOWN[key] = layout if is_known else None
    return _KNOWN[key]


def remember(program: Program, form: Form, batch: int, machine: Machine, layout: Layout) -> None:
    """Take this layout for such calls from now on, also in other processes on this machine."""
    call = call_of(program, form, batch)
    _KNOWN[machine.device, machine.name, call] = layout
    _CHANGES.append(call)
    keep(_named(machine.name, call), written(layout).encode("ascii"), _SUFFIX)


def _named(device: str, call: str) -> str:
    return f"layout 1 of {device}: {call}"


def written(layout: Layout) -> str:
    """A layout as a line.

    >>> written(Layout("wide", hold=900))
    'wide 16 8 1 1 0 900 8'
    """
    return " ".join([layout.kind, *[str(getattr(layout, name)) for name in _NUMBERS]])


def parse(text: str) -> Layout | None:
    """The layout of a line; None if it is none.

    >>> parse("wide 16 8 1 1 0 900 8").hold
    900
    >>> parse("wide 16 8 1 1 0 -900 8"), parse("wide 16 2 1 1 0 900 8"), parse("")
    (None, None, None)
    """
    kind, *numbers = text.split() or [""]
    if kind not in TUNED or len(numbers) != len(_NUMBERS):
        return None
    if not all(each.isascii() and each.isdigit() and len(each) <= 4 for each in numbers):
        return None
    values = dict(zip(_NUMBERS, map(int, numbers), strict=True))
    try:
        return Layout(kind, **values) if max(values.values()) <= _MOST else None  # type: ignore[arg-type]
    except ValueError:  # fewer threads than numbers
        return None


def _is_tried(layout: Layout, program: Program, form: Form, batch: int, machine: Machine) -> bool:
    """Whether a measurement on this device could have found it."""
    for base in alternatives(program, form, batch, machine.device):
        chunked, held = variants(program, form, base)
        chunks, aheads = {each.chunk for each in chunked}, {each.ahead for each in chunked}
        holds = {each.hold for each in held}
        same = replace(base, chunk=layout.chunk, hold=layout.hold, ahead=layout.ahead)
        if same == layout and layout.chunk in chunks | {base.chunk} and layout.ahead in aheads | {base.ahead}:
            return layout.hold in holds | {base.hold}
    return False


@cache
def _table() -> dict[tuple[str, str], str]:
    """By device and call; what is no line of three words is none."""
    content = files("cellwise.backends.cuda").joinpath(TABLE).read_bytes()
    _, *lines = content.decode("ascii", "replace").splitlines() or [""]
    rows = csv.DictReader(lines, ("device", "call", "layout"))
    return {(row["device"], row["call"]): row["layout"] for row in rows if row["layout"]}
