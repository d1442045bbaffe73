"""Sentences with the tags of their words as a picture: each tag under its word, wrong ones in colour, as SVG."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

from cellwise.tasks.report.charts import BASELINE, FAINT, GOOD, INK
from cellwise.tasks.shown import shown
from cellwise.tasks.tag.schemes import OUTSIDE

__all__ = ["TaggedSentence", "TaggedWord", "tagged_sentences"]

WIDE, NARROW = 960, 400  # of the picture
LEFT, GAP = 4, 10  # before the first word of a line, and between words
WORD, TAG = 15, 11  # sizes of letters
LINE, UNDER, BETWEEN = 28, 14, 20  # to a line of words, to a line of tags under it, between sentences
THIN = frozenset("iljtfrI.,:;'!|()[]/-")
LONGEST = 24  # letters of a word or tag that are shown


@dataclass(frozen=True)
class TaggedWord:
    """A word, the tag it was given, the true one, and how probable the model found each."""

    word: str
    made: str
    true: str
    chance: float
    true_chance: float

    @property
    def is_right(self) -> bool:
        """Whether the tag is."""
        return self.made == self.true

    @property
    def tags(self) -> tuple[tuple[str, str], ...]:
        """What stands under the word: lines, each with its colour."""
        made = shown(self.made, LONGEST)
        if self.is_right:
            return () if self.made == OUTSIDE else ((made, FAINT),)
        true = shown(self.true, LONGEST)
        return ((f"{made} {self.chance:.0%}", BASELINE), (f"{true} {self.true_chance:.0%}", GOOD))


@dataclass(frozen=True)
class TaggedSentence:
    """A heading, and words with their tags."""

    heading: str
    words: Sequence[TaggedWord]


def tagged_sentences(sentences: Sequence[TaggedSentence], *, narrow: bool = False) -> str:
    """One sentence under the other. A wrong tag stands in orange under its word, the right one in green under that."""
    width, top, rows = NARROW if narrow else WIDE, 0, []
    for sentence in sentences:
        top += 22
        rows.append(_text(LEFT, top, sentence.heading, 13, FAINT))
        for line in _lines(sentence.words, width):
            top += LINE
            for left, word in line:
                rows.extend(_word(left, top, word))
            top += UNDER * max(len(word.tags) for _, word in line)
        top += BETWEEN
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}pt" height="{top}pt" viewBox="0 0 {width} {top}"'
    return f"{head} style=\"font-family: 'DejaVu Sans'\">\n" + "\n".join(rows) + "\n</svg>\n"


def _word(left: float, top: int, word: TaggedWord) -> Iterator[str]:
    title = f"{word.made} {word.chance:.0%}"
    if word.is_right:
        yield _text(left, top, shown(word.word, LONGEST), WORD, INK, title=title)
    else:
        yield _text(left, top, shown(word.word, LONGEST), WORD, BASELINE, title=title, bold=True)
    for number, (tag, colour) in enumerate(word.tags, 1):
        yield _text(left, top + UNDER * number, tag, TAG, colour)


def _text(
    left: float, top: int, content: str, size: int, colour: str, *, title: str = "", bold: bool = False
) -> str:
    style = f"font-size: {size}px; fill: {colour}" + ("; font-weight: bold" if bold else "")
    inner = escape(content) + (f"<title>{escape(shown(title))}</title>" if title else "")
    return f'<text x="{left:.0f}" y="{top}" style="{style}">{inner}</text>'


def _lines(words: Sequence[TaggedWord], width: int) -> Iterator[list[tuple[float, TaggedWord]]]:
    """The words of each line, with where they begin."""
    line: list[tuple[float, TaggedWord]] = []
    left: float = LEFT
    for word in words:
        bold = 1.0 if word.is_right else 1.1
        widths = [_width(tag, TAG) for tag, _ in word.tags]
        size = max(_width(shown(word.word, LONGEST), WORD * bold), *widths, 0.0)
        if line and left + size > width:
            yield line
            line, left = [], LEFT
        line.append((left, word))
        left += size + GAP
    if line:
        yield line


def _width(text: str, size: float) -> float:
    """About how wide a text is: there are no fonts here to measure it by."""
    return size * sum(map(_letter_width, text))


def _letter_width(letter: str) -> float:
    """In units of its size."""
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.0
    if letter in THIN:
        return 0.4
    return 0.75 if letter.isupper() or letter in "mw@%" else 0.6
