"""The report of a tagger: how good it is beside the most frequent tag, on which tags, words and sentences it errs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from cellwise import cells
from cellwise._version import __version__
from cellwise.tasks.report.charts import FAINT, MODEL, chart, legend, loss_plot
from cellwise.tasks.report.page import Chart, Page, Section, write_page
from cellwise.tasks.report.table import ReportTable, TableCell, TableRow
from cellwise.tasks.shown import shown
from cellwise.tasks.tag.chances import Tagging
from cellwise.tasks.tag.coloured import TaggedSentence, TaggedWord, tagged_sentences
from cellwise.tasks.tag.conll import Sentences
from cellwise.tasks.tag.metrics import Counts, count_entities, count_tags
from cellwise.tasks.training.run_folder import RunFolder

if TYPE_CHECKING:
    from cellwise.tasks.tag.tagger import SequenceTagger

__all__ = ["BASELINE", "compared", "measured_on", "scores_of", "shown_scores", "unseen_tags", "write_report"]

BASELINE = "most frequent tag"
LINEAR = "linear model"
MOST_ROWS, MOST_SENTENCES = 20, 10
MOST_WORDS, BEFORE = 45, 8  # of a sentence that are shown, and before its first mistake
BINS = 10
LEAST = 20  # words in a bin; fewer say little
SURE = 0.95
MOST_NAMES = 5
TITLES = {
    "accuracy": "accuracy",
    "accuracy_known": "known words",
    "accuracy_unknown": "unknown words",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
}

Scores = dict[str, dict[str, float]]


def compared(tagger: SequenceTagger, sentences: Sentences, predicted: Any = None) -> Scores:
    """Model -> its metrics on sentences: the tagger, the linear model in it, and the most frequent tag of each word."""
    from cellwise.tasks.tag.tagger import score_tags

    data = tagger._data
    own = tagger.measure(sentences) if predicted is None else score_tags(data, sentences, predicted)
    scores = {tagger.model_name: own}
    linear = tagger.tagged_by_linear(sentences)
    if linear is not None:
        scores[LINEAR] = score_tags(data, sentences, linear)
    return scores | {BASELINE: score_tags(data, sentences, data.baseline.predict(sentences.words))}


def scores_of(tagger: SequenceTagger) -> Scores | None:
    """The same on what was held out; None if nothing was."""
    return None if tagger.held_out_ is None else compared(tagger, tagger.held_out_)


def shown_scores(scores: Mapping[str, Mapping[str, float]]) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """The table for a terminal, in percent."""
    return ("model", *TITLES.values()), [
        (name, *(_percent(own[key]) for key in TITLES)) for name, own in scores.items()
    ]


def measured_on(tagger: SequenceTagger) -> str:
    """What the figures were measured on, and how far one may believe them."""
    held = tagger.held_out_
    assert held is not None
    words = f"{held.count:,} words in {len(held):,} sentences"
    if tagger.is_test_:
        return f"Measured on {words} that neither training nor early stopping has seen."
    return (
        f"Measured on {words} that decided when to stop: not trained on, but looked at, so a little flattering. "
        "Figures of other sentences are honest (cellwise tag evaluate)."
    )


def unseen_tags(tagger: SequenceTagger, sentences: Sentences) -> tuple[str, ...]:
    """A sentence on tags that training has not seen; none if there are none."""
    learned, plan = frozenset(tagger.tags_), tagger._data.plan
    unseen = Counter(
        tag
        for own in sentences.tags or ()
        for tag, as_learned in zip(own, plan.learned(own), strict=True)
        if as_learned not in learned
    )
    if not unseen:
        return ()
    names = ", ".join(shown(tag, 30) for tag, _ in unseen.most_common(MOST_NAMES))
    more = ", ..." if len(unseen) > MOST_NAMES else ""
    words = "word has a tag" if unseen.total() == 1 else "words have tags"
    return (
        f"{unseen.total():,} {words} that training never saw ({names}{more}); nothing can get them right.",
    )


def write_report(run: RunFolder, tagger: SequenceTagger) -> None:
    """Write report.html, and its charts as files of their own in plots/."""
    write_page(run, _page(tagger))


def _page(tagger: SequenceTagger) -> Page:
    held = tagger.held_out_
    sections: list[Section] = []
    said, is_ahead = "", True
    if held is not None:
        assert held.tags is not None
        taggings = tagger.tagged(held)
        predicted = [each.tags for each in taggings]
        scores = compared(tagger, held, predicted)
        said, is_ahead = _verdict(tagger, scores)
        sections += [
            Section("How good it is", measured_on(tagger), table=_scores_table(scores), note=_note(tagger)),
            _kinds_section(tagger, held, predicted),
            _confusions_section(held, predicted),
            _sentences_section(held, taggings),
            _sure_section(held, taggings),
        ]
    if tagger.trained_ is not None:
        caption = (
            "Training loss and the figure on what was held out; the ring marks the weights that were kept."
        )
        sections.append(Section("Training", charts=(Chart("loss", loss_plot(tagger.trained_), caption),)))
    weights = sum(p.numel() for p in tagger.network_.parameters())
    lexicon = tagger._data.lexicon
    return Page(
        title=f"Tags: {tagger.model_name}",
        subtitle=f"{len(lexicon.words):,} different words, {len(tagger.tags_):,} tags",
        verdict=said,
        is_ahead=is_ahead,
        sections=tuple(sections),
        notes=tagger.notes_,
        settings=tagger.get_params() | {"cell": cells.get(tagger.cell).name},
        footer=f"cellwise {__version__}, torch {torch.__version__}; {weights:,} weights, seed {tagger.seed}.",
    )


def _verdict(tagger: SequenceTagger, scores: Scores) -> tuple[str, bool]:
    key = "f1" if tagger.scheme_ is not None else "accuracy"
    own = scores[tagger.model_name][key]
    others = {name: each[key] for name, each in scores.items() if name != tagger.model_name}
    what = "finds entities with an F1 of" if key == "f1" else "gives the right tag to"
    unit = "" if key == "f1" else " of the words"
    names = {LINEAR: "the linear model in it", BASELINE: "the most frequent tag of each word"}
    rest = ", ".join(f"{names[name]} {_percent(value)} %" for name, value in others.items())
    text = f"{tagger.model_name} {what} {_percent(own)} %{unit}. For comparison: {rest}."
    return text, own > max(others.values())


def _scores_table(scores: Scores) -> ReportTable:
    best = {key: np.nanmax([own[key] for own in scores.values()] + [0.0]) for key in TITLES}
    rows = tuple(
        TableRow(name, tuple(TableCell(_percent(own[key]), own[key] == best[key]) for key in TITLES))
        for name, own in scores.items()
    )
    return ReportTable("model", tuple(TITLES.values()), rows)


def _note(tagger: SequenceTagger) -> str:
    means = (
        "of entities: one is right if its first word, its last word and its type are"
        if tagger.scheme_ is not None
        else "means over the tags, each counting alike"
    )
    return f"In percent. Known words stand in the training sentences. Precision, recall and F1 are {means}."


def _kinds_section(tagger: SequenceTagger, held: Sentences, predicted: Sequence[Sequence[str]]) -> Section:
    assert held.tags is not None
    has_entities = tagger.scheme_ is not None
    counts = (count_entities if has_entities else count_tags)(held.tags, predicted)
    order = sorted(counts, key=lambda kind: -counts[kind].true)
    rows = tuple(TableRow(kind, _cells_of(counts[kind])) for kind in order[:MOST_ROWS])
    what = "type of entity" if has_entities else "tag"
    more = f" The {MOST_ROWS} most frequent of {len(order)}." if len(order) > MOST_ROWS else ""
    columns = ("precision", "recall", "F1", "true", "predicted")
    return Section(
        f"By {what}", table=ReportTable(what, columns, rows), note=f"In percent, and numbers.{more}"
    )


def _cells_of(counts: Counts) -> tuple[TableCell, ...]:
    shares = (_percent(value) for value in (counts.precision, counts.recall, counts.f1))
    return tuple(TableCell(text) for text in (*shares, f"{counts.true:,}", f"{counts.predicted:,}"))


def _confusions_section(held: Sentences, predicted: Sequence[Sequence[str]]) -> Section:
    pairs: Counter[tuple[str, str]] = Counter()
    words: dict[tuple[str, str], Counter[str]] = {}
    for sentence, real, own in zip(held.words, held.tags or (), predicted, strict=True):
        for word, a, b in zip(sentence, real, own, strict=True):
            if a != b:
                pairs[a, b] += 1
                words.setdefault((a, b), Counter())[word] += 1
    rows = tuple(
        TableRow(
            f"{a} taken for {b}",
            (TableCell(f"{count:,}"), TableCell(", ".join(word for word, _ in words[a, b].most_common(5)))),
        )
        for (a, b), count in pairs.most_common(MOST_ROWS)
    )
    text = f"{pairs.total():,} of {held.count:,} words have a wrong tag."
    return Section(
        "What it confuses", text, table=ReportTable("", ("times", "words, for example"), rows, words=(1,))
    )


def _sentences_section(held: Sentences, predicted: Sequence[Tagging]) -> Section:
    wrong = [
        sum(a != b for a, b in zip(real, own.tags, strict=True))
        for real, own in zip(held.tags or (), predicted, strict=True)
    ]
    order = sorted(range(len(held)), key=lambda i: (-wrong[i], len(held.words[i])))[:MOST_SENTENCES]
    worst = [_tagged(held, i, predicted[i], wrong[i]) for i in order if wrong[i]]
    if not worst:
        return Section("The worst sentences", "No word has a wrong tag.")
    caption = (
        "Under each word its tag, unless it is O; a wrong one in orange, and the right one in green under it, with the "
        "probability that the model gave them."
    )
    chart = Chart("sentences", tagged_sentences(worst), caption, narrow=tagged_sentences(worst, narrow=True))
    return Section("The worst sentences", lead=chart)


def _tagged(held: Sentences, number: int, own: Tagging, wrong: int) -> TaggedSentence:
    """A sentence with its tags; of a long one, what stands around its first mistakes."""
    words = [
        TaggedWord(word, made, true, chance, true_chance)
        for word, made, true, chance, true_chance in zip(
            held.words[number],
            own.tags,
            (held.tags or ())[number],
            own.chances,
            own.true_chances or (),
            strict=True,
        )
    ]
    first = next(i for i, word in enumerate(words) if not word.is_right)
    begin = max(0, min(first - BEFORE, len(words) - MOST_WORDS))
    part = words[begin : begin + MOST_WORDS]
    of = "" if len(part) == len(words) else f", words {begin + 1} to {begin + len(part)}"
    return TaggedSentence(f"{wrong} of {len(words)} words are wrong{of}", part)


def _sure_section(held: Sentences, predicted: Sequence[Tagging]) -> Section:
    """How often tags are right, by the probability that the model gives them."""
    right = np.array(
        [
            a == b
            for real, own in zip(held.tags or (), predicted, strict=True)
            for a, b in zip(real, own.tags, strict=True)
        ]
    )
    chances = np.array([chance for own in predicted for chance in own.chances])
    bins = np.minimum((chances * BINS).astype(int), BINS - 1)
    least = min(LEAST, len(chances) // (2 * BINS))
    filled = [number for number in range(BINS) if (bins == number).sum() > least]
    means = [(chances[bins == number].mean(), right[bins == number].mean()) for number in filled]

    def draw(axes: Any) -> None:
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle="--", label="as it should be")
        axes.plot(*zip(*means, strict=True), "o-", color=MODEL, markersize=4, label="tags")
        axes.set_xlabel("probability of the tag")
        axes.set_ylabel("share that is right")
        legend(axes)

    sure = chances >= SURE
    text = (
        f"{_percent(sure.mean())} % of the tags have a probability of at least {SURE:.0%}; of these "
        f"{_percent(right[sure].mean() if sure.any() else float('nan'))} % are right, of the others "
        f"{_percent(right[~sure].mean() if (~sure).any() else float('nan'))} %."
    )
    caption = "Tags by their probability: on the line, they are right as often as it says."
    return Section("How sure it is", text, charts=(Chart("sure", chart(draw, 4.7, 3.0, "sure"), caption),))


def _percent(value: float) -> str:
    return f"{100 * value:.1f}" if np.isfinite(value) else "–"
