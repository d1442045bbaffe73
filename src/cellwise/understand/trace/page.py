"""One HTML page that needs no network: what goes on inside, and what each prediction depends on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import torch
from torch import Tensor

from cellwise.understand.trace.errors import TraceError
from cellwise.understand.trace.order import by_activity, orders
from cellwise.understand.trace.packing import LEVELS, fitting, pack_shares, pack_signal, roots
from cellwise.understand.trace.recording import LayerRecording, Signal

__all__ = ["Dependence", "Page", "TracedLayer", "reach", "render"]

TEMPLATES = Path(__file__).parent / "templates"
# Bytes before they are written as text, which makes them longer by a third: 3 MB in all.
SIGNAL_BUDGET, DEPENDENCE_BUDGET = 1_500_000, 550_000
MOST_UNITS = 256
SCRIPTS = ("data.js", "readers.js", "heatmap.js", "trace.js")


@dataclass(frozen=True, eq=False)
class TracedLayer:
    """A layer as the page calls it."""

    name: str
    recording: LayerRecording


@dataclass(frozen=True, eq=False)
class Dependence:
    """How the predictions of each step depend on the inputs: values (K, T, T), as `sensitivity` gives them.

    meaning: a sentence on what a number is. signed: whether the numbers have a direction.
    """

    name: str
    meaning: str
    values: Tensor
    signed: bool = False


@dataclass(frozen=True, eq=False)
class Page:
    """All that a page is made of. `kind` says which reader stands at its top, `reader` is what that one needs.

    labels (T): what each step is called; targets (K): what each prediction is called; parts: what the last prediction
    rests on, and the share of each.
    """

    kind: str
    title: str
    subtitle: str
    equations: str
    cell: str
    labels: Sequence[str]
    layers: Sequence[TracedLayer]
    targets: Sequence[str]
    dependences: Sequence[Dependence]
    reader: dict[str, Any]
    start: int
    parts: Sequence[tuple[str, str]] = ()
    notes: Sequence[str] = ()
    footer: str = ""


def render(page: Page) -> str:
    """The page as HTML.

    Raises:
        TraceError: a dependence is not finite, as in a network that has diverged.
    """
    if not all(bool(each.values.isfinite().all()) for each in page.dependences):
        raise TraceError(
            "the gradients of this network are not finite; it has diverged, and shows nothing to draw"
        )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    layers, notes = _layers(page.layers)
    data = {
        "kind": page.kind,
        "cell": page.cell,
        "labels": list(page.labels),
        "layers": layers,
        "targets": list(page.targets),
        "dependences": _dependences(page.dependences),
        "start": page.start,
        **page.reader,
    }
    # "<" could end the script element or begin a comment in it.
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False).replace(
        "<", "\\u003c"
    )
    context = {
        "page": page,
        "notes": [*page.notes, *notes],
        "data": text,
        "style": (TEMPLATES / "trace.css").read_text("utf8"),
        "script": "\n".join((TEMPLATES / name).read_text("utf8") for name in SCRIPTS),
    }
    return environment.get_template("trace.html").render(context)


def _layers(layers: Sequence[TracedLayer]) -> tuple[list[dict[str, Any]], list[str]]:
    widest = max(layer.recording.output.shape[1] for layer in layers)
    most, room = min(widest, MOST_UNITS), 0.0
    made: list[dict[str, Any]] = []
    while room < 1 and most > 0:
        made, room = _pack_layers(layers, most)
        shown, most = most, min(most - 1, int(most * room))
    notes = (
        [f"Of the {widest} units of a layer the {shown} that move most are drawn."] if widest > shown else []
    )
    levels = max(signal["packed"]["levels"] for layer in made for signal in layer["signals"])
    if levels < max(LEVELS):
        notes.append(f"To keep this page small, values are rounded to {levels + 1} steps of their range.")
    return made, notes


def _pack_layers(layers: Sequence[TracedLayer], most: int) -> tuple[list[dict[str, Any]], float]:
    """Every layer with its signals, and how much of them the page has room for: 1 or more if for all."""
    chosen = [sorted(by_activity(_first_state(each.recording))[:most]) for each in layers]
    signals = [
        (signal, signal.values[:, units], bounds(signal))
        for layer, units in zip(layers, chosen, strict=True)
        for signal in layer.recording.signals
    ]
    fit = fitting(lambda levels: [pack_signal(v, *b, levels) for _, v, b in signals], SIGNAL_BUDGET)
    rest = iter(zip(signals, fit.packed, strict=True))
    made = []
    for layer, units in zip(layers, chosen, strict=True):
        described = []
        for _ in layer.recording.signals:
            (signal, _, (low, high)), each = next(rest)
            about = {"name": signal.name, "kind": signal.kind, "low": low, "high": high}
            described.append(about | {"packed": each.to_json()})
        places = orders(_first_state(layer.recording)[:, units])
        made.append({"name": layer.name, "units": units, "orders": places, "signals": described})
    return made, fit.room


def bounds(signal: Signal) -> tuple[float, float]:
    """What the colours of a signal span: what its equation allows, else what occurs, zero in the middle."""
    if signal.bounds is not None:
        return signal.bounds
    finite = signal.values[signal.values.isfinite()]
    largest = float(finite.abs().max()) if len(finite) else 0.0
    largest = largest or 1.0
    return (-largest, largest) if bool((finite < 0).any()) else (0.0, largest)


def _first_state(recording: LayerRecording) -> Tensor:
    return recording.signals[0].values


def _dependences(dependences: Sequence[Dependence]) -> list[dict[str, Any]]:
    largest = [each.values.abs().amax(-1) for each in dependences]
    shares = [roots(each.values, most) for each, most in zip(dependences, largest, strict=True)]
    signed = [each.signed for each in dependences]
    fit = fitting(
        lambda levels: [pack_shares(*each, levels) for each in zip(shares, signed, strict=True)],
        DEPENDENCE_BUDGET,
    )
    if (
        fit.room < 1
    ):  # some thousand steps that all remember everything: only as far back as there is room for
        return _dependences([_nearer(each, 0.9 * fit.room) for each in dependences])
    return [
        {
            "name": each.name,
            "meaning": each.meaning,
            "signed": each.signed,
            "largest": [[float(f"{value:.4g}") for value in row] for row in most.tolist()],
            "packed": one.to_json(),
        }
        for each, most, one in zip(dependences, largest, fit.packed, strict=True)
    ]


def _nearer(dependence: Dependence, share: float) -> Dependence:
    """Only so large a share of the steps that are looked back at, the latest ones."""
    T = dependence.values.shape[-1]
    age = torch.arange(T)[:, None] - torch.arange(T)
    kept = int(share * int((age * (dependence.values != 0).any(0)).max()))
    return Dependence(
        dependence.name,
        f"{dependence.meaning.partition(' Only the last')[0]} Only the last {kept} steps are kept.",
        dependence.values.masked_fill(age > kept, 0.0),
        dependence.signed,
    )


def reach(values: Tensor, share: float) -> float:
    """Within how many of the latest inputs, this step's among them, `share` of the dependence lies: the mean over
    all predictions (..., T, T) of the second half, which have something to look back at.

    >>> reach(torch.tensor([[1.0, 0.0, 0.0], [1.0, 3.0, 0.0], [1.0, 1.0, 2.0]]), 0.5)
    1.0
    """
    T = values.shape[-1]
    rows = values[..., T // 2 :, :].abs().double()
    back = torch.stack(
        [rows[..., i, : T // 2 + i + 1].flip(-1)[..., : T // 2 + 1] for i in range(T - T // 2)], -2
    )
    total = back.sum(-1, keepdim=True)
    enough = back.cumsum(-1) >= share * total - 1e-12
    count = (~enough).sum(-1) + 1.0
    return float(count[total[..., 0] > 0].mean()) if bool((total > 0).any()) else 0.0
