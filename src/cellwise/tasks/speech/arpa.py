r"""N-gram models of words in ARPA's text format, which SRILM, KenLM and others write.

    \data\
    ngram 1=3
    ngram 2=1

    \1-grams:
    -0.5  hello  -0.3        log10 of the probability, the words, log10 of the backoff weight, which may be missing

A file is read line by line, and nothing that it says of itself is trusted."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

from cellwise.tasks.data.text_file import text_blocks
from cellwise.tasks.errors import DataError
from cellwise.tasks.options import short_repr
from cellwise.tasks.speech.words import WordModel

__all__ = ["ArpaWords", "read_arpa"]

MOST_GRAMS, HIGHEST_ORDER, LONGEST_LINE = 20_000_000, 10, 10_000
BEGIN, FINISH, UNKNOWN = "<s>", "</s>", "<unk>"
LOG10 = math.log(10.0)
_COUNT, _SECTION = re.compile(r"ngram\s+(\d+)\s*=\s*(\d+)"), re.compile(r"\\(\d+)-grams:")

Gram = tuple[str, ...]


class ArpaWords(WordModel):
    """An n-gram model with backoff (Katz 1987). chances, backoffs: natural logarithms by n-gram.

    A word that it does not know is scored as <unk>, or where it has none as its rarest word, and spelled."""

    def __init__(self, chances: dict[Gram, float], backoffs: dict[Gram, float], order: int) -> None:
        self._chances, self._backoffs, self._order = chances, backoffs, order
        if (UNKNOWN,) not in chances:
            chances[(UNKNOWN,)] = min(
                value for gram, value in chances.items() if len(gram) == 1 and gram != (BEGIN,)
            )

    @property
    def start(self) -> Gram:
        """A history is the last words."""
        return self._cut((BEGIN,))

    def knows(self, word: str) -> bool:
        """Whether the file has a word."""
        return (word,) in self._chances

    def chance(self, history: Gram, word: str, spelled: float) -> float:
        """See `WordModel`."""
        return self._chance(history, word) if self.knows(word) else self._chance(history, UNKNOWN) + spelled

    def after(self, history: Gram, word: str) -> Gram:
        """See `WordModel`."""
        return self._cut((*history, word if self.knows(word) else UNKNOWN))

    def end(self, history: Gram) -> float:
        """See `WordModel`."""
        return self._chance(history, FINISH) if self.knows(FINISH) else 0.0

    def _cut(self, words: Gram) -> Gram:
        return words[max(0, len(words) - self._order + 1) :]

    def _chance(self, history: Gram, word: str) -> float:
        backoff = 0.0
        while (*history, word) not in self._chances:
            backoff += self._backoffs.get(history, 0.0)
            history = history[1:]
        return backoff + self._chances[(*history, word)]


def read_arpa(path: Path) -> ArpaWords:
    """The model in a file. DataError names the line that is wrong."""
    chances: dict[Gram, float] = {}
    backoffs: dict[Gram, float] = {}
    declared: dict[int, int] = {}
    found: dict[int, int] = {}
    order, is_data, is_over = 0, False, False
    for number, line in _lines(path):
        if line == "\\end\\":
            is_over = True
            break
        if not is_data:  # whatever stands before is a comment
            is_data = line == "\\data\\"
        elif count := _COUNT.fullmatch(line):
            declared[int(count[1][:3])] = int(count[2][:12])
            if max(declared) > HIGHEST_ORDER or sum(declared.values()) > MOST_GRAMS:
                raise DataError(
                    f"{path} has too many n-grams for a search in Python (at most {MOST_GRAMS:,}, of up to "
                    f"{HIGHEST_ORDER} words); prune it"
                )
        elif section := _SECTION.fullmatch(line):
            order = int(section[1][:3])
            if order not in declared:
                raise DataError(f"{path}, line {number:,}: it has not said how many {order}-grams there are")
        else:
            if not order:
                raise DataError(f"{path}, line {number:,}: an n-gram stands before any \\1-grams: line")
            gram, chance, backoff = _gram(line, order, f"{path}, line {number:,}")
            found[order] = found.get(order, 0) + 1
            if found[order] > declared[order]:
                raise DataError(f"{path} has more {order}-grams than the {declared[order]:,} that it says")
            chances[gram] = chance
            if backoff is not None:
                backoffs[gram] = backoff
    if not is_data:
        raise DataError(f"{path} is no n-gram model in ARPA's format: it has no line \\data\\")
    if not is_over:
        raise DataError(f"{path} is not whole: it has no line \\end\\")
    if found.get(1, 0) <= ((BEGIN,) in chances):
        raise DataError(f"{path} holds no words")
    return ArpaWords(chances, backoffs, max(found))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not empty, with their numbers from 1."""
    rest, number = "", 0
    for block in text_blocks(path):
        *lines, rest = (rest + block).split("\n")
        if len(rest) > LONGEST_LINE:
            raise DataError(f"{path}, line {number + len(lines) + 1:,} is too long for an n-gram model")
        for line in lines:
            number += 1
            if line := line.strip():
                yield number, line
    if rest.strip():
        yield number + 1, rest.strip()


def _gram(line: str, order: int, where: str) -> tuple[Gram, float, float | None]:
    """An n-gram with the natural logarithms of its probability and of its backoff weight."""
    parts = line.split()
    if len(parts) not in (order + 1, order + 2):
        raise DataError(
            f"{where}: a {order}-gram is a number, {order} words and a number, not {short_repr(line)}"
        )
    chance = _number(parts[0], where)
    if chance > 1e-4:
        raise DataError(f"{where}: the logarithm of a probability is not above 0, as {parts[0]:.20} is")
    backoff = _number(parts[-1], where) if len(parts) == order + 2 else None
    return tuple(parts[1 : order + 1]), chance * LOG10, None if backoff is None else backoff * LOG10


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value) or value == math.inf:
        raise DataError(f"{where}: {short_repr(text)} is no logarithm")
    return max(value, -100.0)
