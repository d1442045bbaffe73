"""What may be written: translations that are put together from given texts, or that are one of them.

The texts are paths through a trie of pieces. A search keeps, for each translation, where in it it may be, and goes on
only with pieces from which an end can be reached within its limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from cellwise.tasks.data.text_file import read_text
from cellwise.tasks.errors import DataError
from cellwise.tasks.options import short_repr
from cellwise.tasks.translate.batches import Languages, Row
from cellwise.tasks.translate.network import END
from cellwise.tasks.translate.pairs import texts_of
from cellwise.tasks.translate.vocabulary import Piece

__all__ = ["Allowed", "Paths", "Texts", "Walks", "read_allowed"]

Texts = Sequence[str] | Mapping[str, Sequence[str]]


def read_allowed(path: str | Path) -> Texts:
    """A file with a text a line; or with a source, a tab and a text a line, which holds for this source alone.

    Raises DataError."""
    rows = [line.split("\t") for line in read_text(path).split("\n") if line.strip()]
    if not rows:
        raise DataError(f"{path} holds no text that could be allowed")
    widths = {len(row) for row in rows}
    if widths == {1}:
        return [text.strip() for (text,) in rows]
    if widths != {2}:
        raise DataError(f"{path} must have in each line a text, or in each line a source, a tab and a text")
    found: dict[str, list[str]] = {}
    for source, text in rows:
        found.setdefault(source.strip(), []).append(text.strip())
    return found


class Allowed:
    """Texts that translations are put together from or, where `whole`, are one of: the same for all sources, or a
    mapping from sources to theirs, in which case the other sources are free.

    Raises DataError for texts of which the network can write none."""

    def __init__(self, texts: Texts, languages: Languages, *, whole: bool) -> None:
        self._size, self._whole = len(languages.target), whole
        self._by_source = isinstance(texts, Mapping)
        each = texts.items() if isinstance(texts, Mapping) else (("", texts),)
        self._written = {source: _Written(texts_of(own, "allowed texts"), languages) for source, own in each}
        self._shared: dict[str, Paths] = {}

    def paths(self, source: str, row: Row) -> Paths | None:
        """What may be written for a source; None for anything."""
        key = source if self._by_source else ""
        if key not in self._written:
            return None
        written = self._written[key]
        own = {
            piece: number for number, piece in enumerate(row.extra, self._size) if piece in written.missing
        }
        if not own and key in self._shared:
            return self._shared[key]
        paths = written.paths(own)
        if not paths:
            whom = f" for {short_repr(source)}" if self._by_source else ""
            raise DataError(f"nothing that is allowed{whom} can be written: {written.lacks}")
        made = Paths(paths, self._whole)
        if not own:
            self._shared[key] = made
        return made


class _Written:
    """Texts as pieces of the targets. missing: pieces that their vocabulary lacks, though a source may have them."""

    def __init__(self, texts: Sequence[str], languages: Languages) -> None:
        target = languages.target
        self._rows = [form for text in dict.fromkeys(texts) if text.strip() for form in target.forms(text)]
        self._ids = {piece: target.id_of(piece) for row in self._rows for piece in row}
        self.missing = {piece for piece, number in self._ids.items() if number is None}

    @property
    def lacks(self) -> str:
        """Why some cannot be written."""
        if not self._rows:
            return "there is no text"
        return f"the vocabulary of the targets lacks {', '.join(sorted(map(short_repr, self.missing))[:3])}"

    def paths(self, extra: Mapping[Piece, int]) -> list[list[int]]:
        """Those that can be written, as ids. extra: pieces that the vocabulary lacks and a source has."""
        ids = {**self._ids, **extra}
        rows = ([ids[piece] for piece in row] for row in self._rows)
        return [
            [number for number in row if number is not None] for row in map(list, rows) if None not in row
        ]


class Paths:
    """An automaton over ids that accepts one or more of the given paths, in any order; or, where `whole`, exactly one.

    A state is a set of nodes of a trie: where a path may be the beginning of another, several are open."""

    def __init__(self, paths: Iterable[Sequence[int]], whole: bool) -> None:
        self._children: list[dict[int, int]] = [{}]
        ends, self.longest = set(), 0
        for path in paths:
            node, self.longest = 0, max(self.longest, len(path))
            for piece in path:
                if piece not in self._children[node]:
                    self._children[node][piece] = len(self._children)
                    self._children.append({})
                node = self._children[node][piece]
            ends.add(node)
        self._ends, self._whole = ends, whole
        self._left = [0] * len(self._children)  # pieces to the nearest end
        for node in reversed(range(len(self._children))):  # a child's number is above its parent's
            if node not in ends:
                self._left[node] = 1 + min(
                    (self._left[each] for each in self._children[node].values()), default=0
                )
        self._states: dict[frozenset[int], int] = {frozenset((0,)): 0}
        self._nodes = [frozenset((0,))]
        self._following: list[dict[int, int] | None] = [None]
        self._offered: dict[tuple[int, int], list[int]] = {}

    def follow(self, state: int) -> Mapping[int, int]:
        """The pieces that may be next in a state (0 is the first one), and the states that they lead to."""
        found = self._following[state]
        if found is None:
            reached: dict[int, set[int]] = {}
            for node in self._nodes[state]:
                for piece, child in self._children[node].items():
                    reached.setdefault(piece, set()).add(child)
            found = self._following[state] = {piece: self._state(nodes) for piece, nodes in reached.items()}
        return found

    def _state(self, nodes: set[int]) -> int:
        closed = frozenset(nodes | ({0} if not self._whole and nodes & self._ends else set()))
        if closed not in self._states:
            self._states[closed] = len(self._nodes)
            self._nodes.append(closed)
            self._following.append(None)
        return self._states[closed]

    def left(self, state: int) -> int:
        """The fewest pieces from a state to where a translation may end."""
        return min(self._left[node] for node in self._nodes[state])

    def offered(self, state: int, room: int) -> list[int]:
        """The ids that may be next in a state, END among them, if at most `room` pieces may follow before END."""
        key = state, min(room, self.longest + 1)
        if key not in self._offered:
            found = [piece for piece, after in self.follow(state).items() if self.left(after) <= room]
            self._offered[key] = [*found, END] if self.left(state) == 0 else found
        return self._offered[key]


class Walks:
    """Where the K translations of each of B sources are among what they may be; None for a source that is free."""

    def __init__(self, paths: Sequence[Paths | None], beams: int) -> None:
        self._paths = paths
        self._states = [[0] * beams for _ in paths]

    def limits(self, limits: Tensor) -> Tensor:
        """The limits (B,), END included, raised so that each text that is allowed can be written."""
        least = [0 if paths is None else paths.longest + 1 for paths in self._paths]
        return torch.maximum(limits, torch.tensor(least, device=limits.device))

    def masked(self, scores: Tensor, alive: Tensor, rooms: Tensor) -> Tensor:
        """Scores (R, K, V) of the sources `alive` (R,), -inf for what may not be next. rooms (R,): how many pieces may
        follow before END."""
        forbidden = torch.zeros_like(scores, dtype=torch.bool)
        for row, (source, room) in enumerate(zip(alive.tolist(), rooms.tolist(), strict=True)):
            paths = self._paths[source]
            if paths is None:
                continue
            forbidden[row] = True
            for beam, state in enumerate(self._states[source]):
                forbidden[row, beam, paths.offered(state, room)] = False
        return scores.masked_fill(forbidden, -torch.inf)

    def follow(self, alive: Tensor, parents: Tensor, words: Tensor) -> None:
        """Go on from these of the K translations (R, K) with these words (R, K)."""
        for source, own, chosen in zip(alive.tolist(), parents.tolist(), words.tolist(), strict=True):
            paths = self._paths[source]
            if paths is not None:
                states = self._states[source]
                # What nobody can go on with has a score of -inf; its state does not matter.
                self._states[source] = [
                    paths.follow(states[parent]).get(word, 0)
                    for parent, word in zip(own, chosen, strict=True)
                ]
