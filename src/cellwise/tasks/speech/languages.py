"""The language model of a search, as the options of a recogniser name it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cellwise.tasks.speech.arpa import read_arpa
from cellwise.tasks.speech.language import CharacterLanguage, Language
from cellwise.tasks.speech.network_language import load_language
from cellwise.tasks.speech.words import SPACE, WordLanguage, WordNGram

__all__ = ["Choice", "made_language"]

FEW_KNOWN = 0.5  # of the words of the transcripts; a file that knows less was written in another way


@dataclass(frozen=True)
class Choice:
    """kind: "words" or "characters". arpa: a file with an n-gram model of words; run: a run folder of a language model
    of characters; without them both are n-gram models that are learned from sentences."""

    kind: str
    arpa: str | None = None
    run: str | None = None


def made_language(
    choice: Choice, sentences: Sequence[str], characters: Sequence[str]
) -> tuple[Language, tuple[str, ...]]:
    """The language model, and notes on it. characters: those that a recogniser writes.

    Raises DataError, RunFolderError or OptionError for a file or folder that cannot be used."""
    every = "".join(sorted({*characters, SPACE}))
    spelling: Language
    notes: tuple[str, ...] = ()
    if choice.run is None:
        spelling = CharacterLanguage(sentences, every)
    else:
        spelling, notes = load_language(Path(choice.run), every)
    if choice.kind == "characters":
        return spelling, notes
    if choice.arpa is None:
        return WordLanguage(WordNGram(sentences), spelling), notes
    words = read_arpa(Path(choice.arpa))
    said = [word for sentence in sentences for word in sentence.split()]
    known = sum(map(words.knows, said))
    if known < FEW_KNOWN * len(said):
        notes += (
            f"{choice.arpa} knows {known:,} of {len(said):,} words of the transcripts; its words should be written as "
            "transcripts are normalised",
        )
    return WordLanguage(words, spelling), notes
