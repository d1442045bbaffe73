"""The report of a translator: how good it is beside simple methods, what it looks at, where it does best and worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cellwise import cells
from cellwise._version import __version__
from cellwise.tasks.report.charts import BASELINE, FAINT, MODEL, chart, chart_label, loss_plot, whole_numbers
from cellwise.tasks.report.page import Chart, Page, Section, write_page
from cellwise.tasks.report.table import ReportTable, TableCell, TableRow
from cellwise.tasks.training.run_folder import RunFolder
from cellwise.tasks.translate.baselines import simple_translations
from cellwise.tasks.translate.batches import collate
from cellwise.tasks.translate.metrics import TITLES, edit_distance, measure_texts, sentence_chrf, signatures
from cellwise.tasks.translate.pairs import TextPairs
from cellwise.tasks.translate.vocabulary import JOINER

if TYPE_CHECKING:
    from cellwise.tasks.translate.translator import Translator

__all__ = ["beside", "compared", "measured_on", "shown_scores", "write_report"]

PICTURES, MOST_PIECES = 4, 24  # attention pictures, and pieces of a side in one
SENTENCES = 6  # of the best and of the worst
GROUPS = 5  # of sentences by length
LOWER = ("word_error_rate", "symbol_error_rate")  # the metrics of which less is better

Scores = dict[str, dict[str, float]]


def beside(translator: Translator, training: TextPairs, pairs: TextPairs) -> Scores:
    """Simple method -> its metrics on pairs, after it has learned from the training pairs."""
    languages = translator.languages_
    units = languages.source.unit, languages.target.unit
    made = simple_translations(training, pairs.sources, units)
    by_letter = units[1] == "characters"
    return {name: measure_texts(pairs, own, by_letter=by_letter) for name, own in made.items()}


def compared(translator: Translator) -> Scores:
    """Model -> its metrics on what was held out: the network, and simple methods if the training is at hand or its
    run's summary has them."""
    held = translator.held_out_
    assert held is not None
    own = translator._measured_texts(held, translator.held_out_translations())
    return {translator.model_name: own, **translator.baselines_}


def shown_scores(scores: Mapping[str, Mapping[str, float]]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """The table for a terminal: BLEU and chrF from 0 to 100, the others in percent."""
    return ("model", *TITLES.values()), [
        (name, *(_shown(key, own[key]) for key in TITLES)) for name, own in scores.items()
    ]


def _shown(key: str, value: float) -> str:
    if not np.isfinite(value):
        return "–"
    return f"{value:.1f}" if key in ("bleu", "chrf") else f"{100 * value:.1f} %"


def measured_on(translator: Translator) -> str:
    """What the figures were measured on, and how far one may believe them."""
    held = translator.held_out_
    assert held is not None
    if translator.is_test_:
        return f"Measured on {len(held):,} pairs that neither training nor early stopping has seen."
    return (
        f"Measured on {len(held):,} pairs that decided when to stop: not trained on, but looked at, so a little "
        "flattering. Evaluate on others for honest figures."
    )


def write_report(run: RunFolder, translator: Translator) -> None:
    """Write report.html, and its charts as files of their own in plots/."""
    write_page(run, _page(translator))


def _page(translator: Translator) -> Page:
    held = translator.held_out_
    sections: list[Section] = []
    said, is_ahead = "", True
    if held is not None:
        made = translator.held_out_translations()
        scores = compared(translator)
        said, is_ahead = _verdict(translator, scores)
        sections += [
            Section(
                "How good it is", measured_on(translator), table=_scores_table(scores), note=_note(translator)
            ),
            _attention_section(translator, held, made),
            _length_section(translator, held, made),
            *_sentences_sections(translator, held, made),
        ]
    if translator.trained_ is not None:
        caption = (
            "Training loss and the figure on what was held out; the ring marks the weights that were kept."
        )
        sections.append(Section("Training", charts=(Chart("loss", loss_plot(translator.trained_), caption),)))
    weights = sum(p.numel() for p in translator.network_.parameters())
    languages = translator.languages_
    return Page(
        title=f"Translation: {translator.model_name}",
        subtitle=f"{len(languages.source):,} {languages.source.unit} to {len(languages.target):,} "
        f"{languages.target.unit}",
        verdict=said,
        is_ahead=is_ahead,
        sections=tuple(sections),
        notes=translator.notes_,
        settings=translator.get_params() | {"cell": cells.get(translator.cell).name},
        footer=f"cellwise {__version__}, torch {torch.__version__}; {weights:,} weights, seed {translator.seed}.",
    )


def is_of_symbols(translator: Translator) -> bool:
    """Whether errors by symbol say more than BLEU: targets are no sentences."""
    return translator.languages_.target.unit in ("symbols", "characters")


def _verdict(translator: Translator, scores: Scores) -> tuple[str, bool]:
    key = "word_error_rate" if is_of_symbols(translator) else "bleu"
    own = scores[translator.model_name][key]
    others = {name: each[key] for name, each in scores.items() if name != translator.model_name}
    what = "gets" if key == "word_error_rate" else "reaches a BLEU of"
    end = " of the targets wrong" if key == "word_error_rate" else ""
    said = f"{translator.model_name} {what} {_shown(key, own)}{end}"
    if not others:
        return f"{said}.", True
    best = min(others, key=lambda name: others[name] * (1 if key in LOWER else -1))
    ahead = own < others[best] if key in LOWER else own > others[best]
    return f"{said}; {best} {_shown(key, others[best])}.", ahead


def _scores_table(scores: Scores) -> ReportTable:
    best = {key: (min if key in LOWER else max)(own[key] for own in scores.values()) for key in TITLES}
    rows = tuple(
        TableRow(name, tuple(TableCell(_shown(key, own[key]), own[key] == best[key]) for key in TITLES))
        for name, own in scores.items()
    )
    return ReportTable("model", tuple(TITLES.values()), rows)


def _note(translator: Translator) -> str:
    signed = signatures()
    what = "characters" if translator.languages_.target.unit == "characters" else "what stands between blanks"
    return (
        f"BLEU ({signed['bleu']}) and chrF ({signed['chrf']}) take each pair as a segment. A wrong target equals none "
        f"of those of its source; wrong symbols ({what}) are counted against the nearest of them. Copy repeats the "
        "source; translation memory gives the target of the most similar source of the training; IBM model 1 (Brown "
        "et al. 1993) translates word by word."
    )


# --- what it looks at -------------------------------------------------------------------------------------------


def _attention_section(translator: Translator, held: TextPairs, made: Sequence[str]) -> Section:
    chosen = _pictured(translator, held, made)
    charts = tuple(
        Chart(
            f"attention{number}",
            _attention_chart(*each, salt=f"attention{number}"),
            "From above: the source. From the left: what is written. The darker, the more it looks there.",
        )
        for number, each in enumerate(chosen, 1)
    )
    text = "Each row shows which pieces of the source the network attends to while it writes a piece."
    if translator.languages_.monotone:
        text = "Each row shows which piece of the source writes it; the empty columns write nothing."
    return Section("What it looks at", text, charts=charts)


def _pictured(
    translator: Translator, held: TextPairs, made: Sequence[str]
) -> list[tuple[list[str], list[str], np.ndarray]]:
    """Pieces of some sources and translations of middle length, with the attention (T, S) between them."""
    languages, network = translator.languages_, translator.network_
    order = sorted(range(len(held)), key=lambda number: len(held.sources[number]))
    places = np.linspace(0.2, 0.8, PICTURES) * (len(order) - 1)
    found = []
    for number in dict.fromkeys(order[int(place)] for place in places):
        source = _named(languages.source, held.sources[number])
        if languages.monotone:
            ((best,),) = translator.translations([held.sources[number]])
            target = [chart_label(piece, 14) for piece in best.pieces]
            weights = np.eye(len(source))[[min(place, len(source) - 1) for place in best.alignment]]
        else:
            row = languages.pairs(TextPairs((held.sources[number],), (made[number],)))[0]
            with torch.no_grad():
                weights = network.attended(collate([row]))[0, :-1, :-1].numpy()
            target = _named(languages.target, made[number])
        if source and target:
            found.append((source[:MOST_PIECES], target[:MOST_PIECES], weights[:MOST_PIECES, :MOST_PIECES]))
    return found


def _named(vocabulary: Any, text: str) -> list[str]:
    """Its pieces as text; one that begins within a word has a dot before it."""
    (pieces,) = vocabulary.cut([text])
    if vocabulary.unit != "subwords":
        return [chart_label(str(piece).replace(JOINER, ""), 14) or " " for piece in pieces]
    shown = [piece.decode("utf8", "replace") for piece in pieces]
    return [chart_label(each.strip() if each.startswith(" ") else f"·{each}", 14) for each in shown]


def _attention_chart(source: list[str], target: list[str], weights: np.ndarray, salt: str) -> str:
    from matplotlib.colors import to_rgba

    def draw(axes: Any) -> None:
        colours = np.empty((*weights.shape, 4))
        colours[...] = to_rgba(MODEL)
        colours[..., 3] = np.clip(weights, 0, 1)
        rows, columns = weights.shape
        for row in range(rows):
            for column in range(columns):
                if weights[row, column] >= 0.02:
                    axes.add_patch(_square(column, row, colours[row, column]))
        axes.set_xlim(-0.5, columns - 0.5)
        axes.set_ylim(rows - 0.5, -0.5)
        axes.set_xticks(range(columns), source, rotation=60, ha="left", rotation_mode="anchor")
        axes.set_yticks(range(rows), target)
        axes.xaxis.tick_top()
        axes.tick_params(length=0)
        axes.grid(False)

    width = 1.6 + 0.2 * max(len(source), 8)
    return chart(draw, width, 1.2 + 0.2 * max(len(target), 6), salt)


def _square(column: int, row: int, colour: np.ndarray) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=tuple(colour), edgecolor="none")


# --- where it does well and badly -------------------------------------------------------------------------------


def _length_section(translator: Translator, held: TextPairs, made: Sequence[str]) -> Section:
    """Quality by the length of the source, in groups of about equally many pairs."""
    unit = "pieces" if translator.languages_.source.unit == "subwords" else translator.languages_.source.unit
    lengths = np.array([len(row) for row in translator.languages_.source.cut(held.sources)])
    edges = np.unique(np.quantile(lengths, np.linspace(0, 1, GROUPS + 1)).round())
    edges[-1] += 1
    key = "word_error_rate" if is_of_symbols(translator) else "chrf"
    centres, values = [], []
    for low, high in pairwise(edges):
        rows = np.flatnonzero((lengths >= low) & (lengths < high)).tolist()
        if rows:
            measured = translator._measured_texts(held.rows(rows), [made[row] for row in rows])
            centres.append(float(lengths[rows].mean()))
            values.append(measured[key] * (100 if key in LOWER else 1))

    def draw(axes: Any) -> None:
        axes.plot(centres, values, "o-", color=MODEL, linewidth=1.6, markersize=4)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(f"{unit} of the source")
        axes.set_ylabel("wrong targets, %" if key in LOWER else "chrF")
        whole_numbers(axes)

    caption = "Each dot is about as many pairs, from the shortest sources to the longest."
    drawn = Chart("length", chart(draw, 4.7, 3.0, "length"), caption)
    return Section("By length", charts=(drawn, _ratio_chart(held, made)))


def _ratio_chart(held: TextPairs, made: Sequence[str]) -> Chart:
    """Lengths of translations beside those of the targets."""
    own, real = ([len(text.split()) for text in texts] for texts in (made, held.targets))
    most = max([1, *own, *real])

    def draw(axes: Any) -> None:
        axes.plot([0, most], [0, most], color=FAINT, linewidth=0.8)
        axes.plot(real, own, "o", color=BASELINE, markersize=2.5, alpha=0.5)
        axes.set_xlabel("words of the target")
        axes.set_ylabel("words of the translation")
        whole_numbers(axes)

    caption = "A dot below the line is a translation that is shorter than its target."
    return Chart("words", chart(draw, 4.7, 3.0, "words"), caption)


def _sentences_sections(translator: Translator, held: TextPairs, made: Sequence[str]) -> list[Section]:
    title = "wrong symbols" if is_of_symbols(translator) else "chrF"
    if is_of_symbols(translator):
        both = zip(made, held.targets, strict=True)
        scores = [-float(edit_distance(own.split(), target.split())) for own, target in both]
    else:
        scores = sentence_chrf(made, held.targets)
    texts = [f"{abs(each):.0f}" for each in scores]
    order = sorted(range(len(held)), key=lambda number: (scores[number], held.sources[number]))
    best = sorted(order[-SENTENCES * 8 :], key=lambda n: (-scores[n], -len(held.sources[n])))[:SENTENCES]

    def table(chosen: Sequence[int]) -> ReportTable:
        rows = []
        for n in chosen:
            rows.append(TableRow(held.sources[n], (TableCell("source"), TableCell(""))))
            rows.append(TableRow(made[n] or "–", (TableCell("translation"), TableCell(texts[n]))))
            rows.append(TableRow(held.targets[n], (TableCell("target"), TableCell(""))))
        return ReportTable("text", ("", title), tuple(rows), words=(0,))

    return [Section("The worst", table=table(order[:SENTENCES])), Section("The best", table=table(best))]
