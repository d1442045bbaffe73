"""The report of a recogniser: how much it errs, on which recordings and letters, and what it hears when."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from cellwise._version import __version__
from cellwise.tasks.options import options_of
from cellwise.tasks.report.charts import loss_plot
from cellwise.tasks.report.page import Chart, Page, Section, Sound, write_page
from cellwise.tasks.report.settings import setting_groups
from cellwise.tasks.report.table import ReportTable, TableCell, TableRow
from cellwise.tasks.speech.audio import wav_bytes
from cellwise.tasks.speech.data import Clips
from cellwise.tasks.speech.decoding import best_path
from cellwise.tasks.speech.features import LogMel
from cellwise.tasks.speech.metrics import edits, measure_transcripts
from cellwise.tasks.speech.options import SpeechOptions
from cellwise.tasks.speech.plots import path_plot
from cellwise.tasks.speech.transcripts import NORMALIZATIONS
from cellwise.tasks.training.run_folder import RunFolder

if TYPE_CHECKING:
    from cellwise.tasks.speech.recognizer import SpeechRecognizer

__all__ = ["GREEDY", "Found", "compared", "measured_on", "shown_scores", "write_report"]

GREEDY = "without the language model"
TITLES = {"wer": "word errors", "cer": "character errors"}
MOST_WORST, MOST_PLAYED, LONGEST_PLAYED = 12, 6, 8.0  # recordings; seconds of one
MOST_CONFUSIONS = 16
MOST_DRAWN = 4.0  # seconds of a spectrogram


@dataclass(frozen=True)
class Found:
    """What was recognised in some recordings. figures: by model; said: the texts of the recogniser itself."""

    figures: dict[str, dict[str, float]]
    said: list[str]
    scores: list[np.ndarray]


def compared(recognizer: SpeechRecognizer, clips: Clips) -> Found:
    """The error rates with the search, and of the best path alone."""
    from cellwise.tasks.speech.recognizer import figures, spaced

    scores = recognizer._all_scores(clips)
    said = [recognizer._decoded(each) for each in scores]
    greedy = [spaced(recognizer.alphabet_.decode(best_path(each))) for each in scores]
    made = {
        recognizer.model_name: figures(*measure_transcripts(clips.texts, said)),
        GREEDY: figures(*measure_transcripts(clips.texts, greedy)),
    }
    return Found(made, said, scores)


def shown_scores(found: Found) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    """The table for a terminal, in percent, with the counts of edits of words."""
    return ("model", *TITLES.values(), "substituted", "inserted", "deleted", "of words"), [
        (name, *_cells(own)) for name, own in found.figures.items()
    ]


def _cells(own: dict[str, float]) -> list[str]:
    kinds = ("word_substitutions", "word_insertions", "word_deletions", "words")
    return [*(f"{100 * own[name]:.1f}" for name in TITLES), *(f"{own[name]:,.0f}" for name in kinds)]


def measured_on(recognizer: SpeechRecognizer) -> str:
    """What the figures were measured on, and how far one may believe them."""
    held = recognizer.held_out_
    assert held is not None
    return (
        f"Measured on {len(held):,} recordings ({held.seconds / 60:.1f} minutes) that decided when to stop and how "
        "much the language model counts: not trained on, but looked at, so a little flattering. Evaluate on others "
        "for honest figures."
    )


def write_report(run: RunFolder, recognizer: SpeechRecognizer) -> None:
    """Write report.html, and its charts as files of their own in plots/."""
    write_page(run, _page(recognizer))


def _page(recognizer: SpeechRecognizer) -> Page:
    held, sections, verdict = recognizer.held_out_, [], ""
    if held is not None:
        found = compared(recognizer, held)
        own = found.figures[recognizer.model_name]
        verdict = (
            f"{recognizer.model_name} gets {100 * own['wer']:.1f} of 100 words and {100 * own['cer']:.1f} of 100 "
            "characters wrong."
        )
        sections = [
            Section(
                "How much it errs",
                measured_on(recognizer),
                table=_scores_table(found),
                note=_note(recognizer),
            ),
            _heard_section(recognizer, held, found),
        ]
        if found.said != list(held.texts):
            sections += [_worst_section(held, found), _confusions_section(held, found)]
    if recognizer.trained_ is not None:
        caption = (
            "Training loss per character, and the character error rate of the best path on what was held out; the ring "
            "marks the weights that were kept."
        )
        sections.append(Section("Training", charts=(Chart("loss", loss_plot(recognizer.trained_), caption),)))
    weights = sum(p.numel() for p in recognizer.network_.parameters())
    values = recognizer.get_params() | {"cell": recognizer.cell_name}
    return Page(
        title=f"Speech: {recognizer.model_name}",
        subtitle=f"{recognizer.rate_:,} Hz, {len(recognizer.alphabet_)} {recognizer.unit}: {_letters(recognizer)}",
        verdict=verdict,
        sections=tuple(sections),
        notes=recognizer.notes_,
        settings=setting_groups(
            options_of(SpeechOptions), values, {"rate": f"{recognizer.rate_:,}"}, "network", {}
        ),
        footer=f"cellwise {__version__}, torch {torch.__version__}; {weights:,} weights, seed {recognizer.seed}.",
    )


def _letters(recognizer: SpeechRecognizer) -> str:
    shown = " ".join("␣" if each == " " else each for each in recognizer.alphabet_.units[:60])
    return shown + (" …" if len(recognizer.alphabet_) > 60 else "")


def _note(recognizer: SpeechRecognizer) -> str:
    return (
        f"In percent, and numbers of words. Transcripts are compared as they are learned: "
        f"{NORMALIZATIONS[recognizer.normalization]}. The language model, of {recognizer.language}, counts "
        f"{recognizer.language_weight_:g}, a character more {recognizer.bonus_:g}."
    )


def _scores_table(found: Found) -> ReportTable:
    best = {name: min(own[name] for own in found.figures.values()) for name in TITLES}
    rows = []
    for model, own in found.figures.items():
        wins = [own[name] == best[name] for name in TITLES] + [False] * 4
        rows.append(TableRow(model, tuple(map(TableCell, _cells(own), wins))))
    return ReportTable(
        "model", (*TITLES.values(), "substituted", "inserted", "deleted", "of words"), tuple(rows)
    )


def _heard_section(recognizer: SpeechRecognizer, held: Clips, found: Found) -> Section:
    """The spectrogram of a typical recording, of those that fit a page the one that is nearest to the mean."""
    wanted = found.figures[recognizer.model_name]["cer"]

    def unlike(row: int) -> tuple[bool, float]:
        rate = measure_transcripts([held.texts[row]], [found.said[row]])[1].rate
        return len(held.samples[row]) > MOST_DRAWN * held.rate, abs(rate - wanted)

    row = min(range(len(held)), key=unlike)
    features = LogMel(held.rate, recognizer.bands)(held.sound(row)).numpy()
    labels = ("", *recognizer.alphabet_.units)
    wide, narrow = (
        path_plot(features, found.scores[row], labels, held.rate, recognizer.reduction, is_narrow)
        for is_narrow in (False, True)
    )
    caption = (
        f"Spoken: “{held.texts[row]}”. Recognised: “{found.said[row]}”. Above the sound by frequency, "
        "below how probable the network finds each character at each moment; the blank, which stands for none, is left "
        "out."
    )
    return Section("What it hears, and when", lead=Chart("path", wide, caption, narrow))


def _worst_section(held: Clips, found: Found) -> Section:
    wrong = [measure_transcripts([a], [b])[1] for a, b in zip(held.texts, found.said, strict=True)]
    order = sorted((row for row in range(len(held)) if wrong[row].count), key=lambda row: -wrong[row].count)
    rows: list[TableRow] = []
    sounds: list[Sound] = []
    for row in order[:MOST_WORST]:
        said = found.said[row] or "(nothing)"
        rows.append(
            TableRow(held.texts[row] or "(nothing)", (TableCell(said), TableCell(f"{wrong[row].count:,}")))
        )
        if len(sounds) < MOST_PLAYED and len(held.samples[row]) <= LONGEST_PLAYED * held.rate:
            data = base64.b64encode(wav_bytes(held.samples[row].numpy(), held.rate)).decode("ascii")
            sounds.append(Sound(f"data:audio/wav;base64,{data}", f"{held.texts[row]} → {said}"))
    return Section(
        "The worst recordings",
        f"{len(order):,} of {len(held):,} recordings are not recognised without an error.",
        table=ReportTable("spoken", ("recognised", "wrong characters"), tuple(rows), words=(0,)),
        sounds=tuple(sounds),
    )


def _confusions_section(held: Clips, found: Found) -> Section:
    pairs: Counter[tuple[str | None, str | None]] = Counter()
    for reference, said in zip(held.texts, found.said, strict=True):
        pairs.update((a, b) for a, b in edits(reference, said) if a != b)
    times = Counter("".join(held.texts))
    rows = tuple(
        TableRow(_confusion(a, b), (TableCell(f"{count:,}"), TableCell("" if a is None else f"{times[a]:,}")))
        for (a, b), count in pairs.most_common(MOST_CONFUSIONS)
    )
    text = f"{pairs.total():,} edits turn {times.total():,} spoken characters into what was recognised."
    return Section("What it confuses", text, table=ReportTable("", ("times", "of"), rows))


def _confusion(a: str | None, b: str | None) -> str:
    if a is None:
        return f"{_named(b)} where there is none"
    return f"{_named(a)} left out" if b is None else f"{_named(a)} taken for {_named(b)}"


def _named(character: str | None) -> str:
    return "a space" if character == " " else f"{character}"
