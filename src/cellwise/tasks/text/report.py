"""The report of a language model: how well it predicts, what its memory is worth, what surprises it, what it writes."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cellwise import cells
from cellwise._version import __version__
from cellwise.tasks.report.charts import FAINT, MODEL, chart, loss_plot
from cellwise.tasks.report.page import Chart, Page, Section, write_page
from cellwise.tasks.report.table import ReportTable, TableCell, TableRow
from cellwise.tasks.text.baselines import COMPRESSORS
from cellwise.tasks.text.reading import bits_of_lines
from cellwise.tasks.text.samples import TEMPERATURES, chosen
from cellwise.tasks.text.scoring import bits_by_character, bits_of_pieces
from cellwise.tasks.training.run_folder import RunFolder

if TYPE_CHECKING:
    from cellwise.tasks.text.model import LanguageModel

__all__ = [
    "bits_by_position",
    "compared",
    "measured_on",
    "surprising_passages",
    "write_report",
]

WRITTEN = 400  # units of a sample
PIECE, MOST_PIECES = 512, 256  # what the use of memory is measured on
PASSAGE, PASSAGES = 60, 10  # characters of a passage, and how many are shown


def compared(model: LanguageModel) -> dict[str, float]:
    """Model -> bits per character on what was held out: the network, and what was computed beside it."""
    return {model.model_name: model.evaluate(), **model.baselines_}


def beaten_by_learners(scores: dict[str, float], name: str) -> tuple[str, ...]:
    """A sentence where a compressor, which learns as it reads, does better than the network called `name`, which has
    not; none elsewhere."""
    better = [each for each in COMPRESSORS if scores.get(each, math.inf) < scores[name]]
    if not better:
        return ()
    learns = "learns as it reads" if len(better) == 1 else "learn as they read"
    return (
        f"{' and '.join(better)} {learns}; so does the network in: cellwise text evaluate RUN FILE --dynamic",
    )


def measured_on(model: LanguageModel) -> str:
    """What the figures were measured on, and how far one may believe them."""
    kept = f"{len(model.held_out_):,} characters"
    if model.is_test_:
        return f"Measured on the last {kept} of the text, which training never saw."
    return (
        f"Measured on the validation text, {kept}, which decided when to stop: not trained on, but looked at, so a "
        "little flattering."
    )


def write_report(run: RunFolder, model: LanguageModel) -> None:
    """Write report.html, and its charts as files of their own in plots/."""
    write_page(run, _page(model))


def _page(model: LanguageModel) -> Page:
    scores = compared(model)
    own = scores[model.model_name]
    others = {name: bits for name, bits in scores.items() if name != model.model_name}
    said, is_ahead = f"{model.model_name} needs {own:.3f} bits per character.", True
    if others:
        best = min(others, key=lambda name: others[name])
        said = f"{said[:-1]}; {best} needs {others[best]:.3f}."
        is_ahead = own < others[best]
    sections: list[Section | None] = [_scores_section(model, scores)]
    if model.trained_ is not None:
        caption = (
            "Training loss (in nats) and bits per character of the text that decides when to stop; the ring marks the "
            "weights that were kept."
        )
        sections.append(Section("Training", charts=(Chart("loss", loss_plot(model.trained_), caption),)))
    sections += [
        _memory_section(model),
        _surprise_section(model),
        _samples_section(model),
        _epochs_section(model),
    ]
    weights = sum(p.numel() for p in model.network_.parameters())
    settings: dict[str, Any] = model.get_params() | {"cell": cells.get(model.cell).name}
    settings |= {"hidden_size": model.network_.layer.hidden_size, "dropout": model.network_.drop.p}
    return Page(
        title=f"Language model: {model.model_name}",
        subtitle=f"{len(model.tokens_) - 1:,} different {model.unit}",
        verdict=said,
        is_ahead=is_ahead,
        sections=tuple(each for each in sections if each is not None),
        notes=model.notes_,
        settings=settings,
        footer=f"cellwise {__version__}, torch {torch.__version__}; {weights:,} weights, seed {model.seed}.",
    )


def _scores_section(model: LanguageModel, scores: dict[str, float]) -> Section:
    best = min(scores.values())
    rows = tuple(
        TableRow(name, (TableCell(f"{bits:.3f}", bits == best), TableCell(f"{2**bits:.2f}")))
        for name, bits in sorted(scores.items(), key=lambda each: each[1])
    )
    note = (
        "Bits per character: the binary logarithm of how surprising a character is, on average; perplexity is 2 to "
        "its power. Both are per character, whatever the network reads. Kneser-Ney counts sequences of characters in "
        "the same training text. Of xz and PPMd, which are compressors, it is what the measured text adds to the "
        "compressed training text; they learn as they read it, as the network does with --dynamic."
    )
    table = ReportTable("model", ("bits per character", "perplexity"), rows)
    return Section("How well it predicts", measured_on(model), table=table, note=note)


def bits_by_position(model: LanguageModel) -> tuple[np.ndarray, np.ndarray]:
    """How many characters were read before, and the mean bits of the next; ranges of growing width."""
    ids = model._encode(model.held_out_)
    count = min(MOST_PIECES, max(1, len(ids) // PIECE))
    size = min(PIECE, len(ids) // count)
    starts = np.linspace(0, len(ids) - size, count).astype(int)
    bits = torch.stack(bits_of_lines(model.network_, [ids[start : start + size] for start in starts]))
    edges = np.unique(np.geomspace(1, size, 13).astype(int))
    edges[-1] = size
    means = [float(bits[:, a - 1 : b - 1].mean()) for a, b in pairwise(edges.tolist())]
    return np.sqrt(edges[:-1] * (edges[1:] - 1.0)), np.array(means)


def _memory_section(model: LanguageModel) -> Section | None:
    if len(model.held_out_) < 4:
        return None
    places, means = bits_by_position(model)

    def draw(axes: Any) -> None:
        axes.plot(places, means, "o-", color=MODEL, linewidth=1.6, markersize=4)
        axes.axhline(means[-1], color=FAINT, linewidth=0.8)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.set_xlabel(f"{model.unit} read before")
        axes.set_ylabel(f"bits per {model.unit[:-1]}")

    unit = model.unit[:-1]
    caption = f"Bits of a {unit} by how many the network has read before it, from an empty memory on."
    text = (
        f"After 1 to 2 {model.unit} it needs {means[0]:.2f} bits for the next, at the end of the pieces "
        f"{means[-1]:.2f}. Where the line stops falling ends what its memory is worth."
    )
    return Section(
        "What its memory is worth", text, charts=(Chart("memory", chart(draw, 4.7, 3.0, "memory"), caption),)
    )


def surprising_passages(model: LanguageModel) -> list[tuple[str, float, str, float]]:
    """The passages of the held-out text that cost most: text, bits per character, what of it costs most (a character, a
    subword), and its bits."""
    (first, count), *pieces = model.pieces(model.held_out_)
    costs = bits_of_pieces(pieces, model.surprise(model.held_out_)[count - 1 :])
    text, bits = model.held_out_[len(first) :], bits_by_character(costs)
    ends = np.cumsum([len(piece) for piece, _ in costs])
    size = min(PASSAGE, len(bits))
    sums = np.convolve(bits, np.ones(size), "valid")
    found: list[tuple[str, float, str, float]] = []
    for _ in range(PASSAGES):
        begin = int(sums.argmax())
        if not np.isfinite(sums[begin]):
            break
        inside = costs[
            np.searchsorted(ends, begin, "right") : np.searchsorted(ends, begin + size - 1, "right") + 1
        ]
        worst, cost = max(inside, key=lambda piece: piece[1])
        found.append((text[begin : begin + size], float(sums[begin] / size), worst, cost))
        sums[max(0, begin - size + 1) : begin + size] = -np.inf
    return found


def _surprise_section(model: LanguageModel) -> Section:
    rows = tuple(
        TableRow(
            " ".join(passage.split()),
            (TableCell(f"{mean:.2f}"), TableCell(f"{worst!r} ({bits:.1f} bits)")),
        )
        for passage, mean, worst, bits in surprising_passages(model)
    )
    table = ReportTable("passage", ("bits per character", "most surprising"), rows)
    return Section("What surprises it", f"Passages of {PASSAGE} characters that cost most.", table=table)


def _samples_section(model: LanguageModel) -> Section:
    rows = tuple(
        TableRow(
            " ".join(model.generate(WRITTEN, "\n", temperature).split()), (TableCell(f"{temperature:g}"),)
        )
        for temperature in TEMPERATURES
    )
    text = "The higher the temperature, the more often it takes what is less likely."
    return Section("What it writes", text, table=ReportTable("it writes", ("temperature",), rows))


def _epochs_section(model: LanguageModel) -> Section | None:
    rows = tuple(
        TableRow(
            " ".join(each.text.split()), (TableCell(str(each.epoch)), TableCell(f"{each.temperature:g}"))
        )
        for each in chosen(model.samples_)
    )
    text = "Each from a new line on, with the same random numbers."
    table = ReportTable("it wrote", ("epoch", "temperature"), rows)
    return Section("What it wrote as it learned", text, table=table) if rows else None
