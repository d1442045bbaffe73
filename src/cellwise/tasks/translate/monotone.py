"""What each piece of a source writes, where both sides go the same way, as letters and sounds do: found by counting.

A target is cut into as many chunks as its source has pieces, each of none, one or several target pieces. How likely a
piece of the source writes a chunk is learned by expectation maximisation over all ways to cut all targets
(Jiampojamarn et al. 2007; Bisani and Ney 2008), and a pair is cut the likeliest way.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate

import numpy as np

from cellwise.tasks.translate.vocabulary import Piece

__all__ = ["WIDEST", "Aligner", "Chunk"]

WIDEST = 3  # target pieces in a chunk, at most
MOST_COUNTED = 60_000  # pairs that are counted
MOST_SEEN = (
    20_000_000  # places in sources times places in targets of pairs that are looked at beforehand: seconds
)
MOST_CELLS = 400_000  # places in a source times places in a target, of pairs that are handled together
ROUNDS = 8
FEWEST_PAIRS = 100  # of which it is said whether sources write targets in turn
MOST_CUT = 0.95  # the share of pairs that have to be cut
# A chunk of several pieces that is used less often is forgotten. Among few pairs good ones are rare too: there it is
# once in so many pairs, but twice at least.
FEWEST, FEWEST_IN = 5, 2000
SMALLEST = 1e-12  # probability of what was not counted
# Of the table: no such chunk; a place beyond the end of a source, which writes nothing.
_NEVER, _BEYOND = 0, 1

Chunk = tuple[Piece, ...]
_Pair = tuple[list[int], list[int]]


class Aligner:
    """Cuts targets into the chunks that the pieces of their sources write, as it has learned from pairs.

    A chunk has at most two pieces, or WIDEST where one pair in a hundred needs more; longer targets are not cut, nor
    those with a piece that was never seen.

    goes_in_turn: whether the pairs look as if sources wrote their targets in turn: there are enough to tell, nearly all
    can be cut, and a piece of a source leaves less than half of the uncertainty about what it writes."""

    goes_in_turn = False

    def __init__(self, sources: Sequence[Sequence[Piece]], targets: Sequence[Sequence[Piece]]) -> None:
        ratios = [len(target) / max(1, len(source)) for source, target in zip(sources, targets, strict=True)]
        widest = 2 if sum(ratio <= 2 for ratio in ratios) >= 0.99 * len(ratios) else WIDEST
        self._letters = {piece: n for n, piece in enumerate(dict.fromkeys(p for row in sources for p in row))}
        self._sounds = {piece: n for n, piece in enumerate(dict.fromkeys(p for row in targets for p in row))}
        self._table = _Table(widest, len(self._sounds))
        cells = sum(len(source) * (len(target) + 1) for source, target in zip(sources, targets, strict=True))
        step = -(-cells // MOST_SEEN) or 1
        sources, targets = sources[::step], targets[::step]
        pairs = self._numbered(sources, targets)
        fits = sorted(pairs)
        counted = fits[:: -(-len(fits) // MOST_COUNTED) or 1]
        if counted:
            self._table.learn([_Batch(self._table, pairs, part) for part in _parts(pairs, counted)])
            used = Counter(chunk for row in self._cut(pairs).values() for chunk in row if len(chunk) > 1)
            fewest = min(FEWEST, max(2, len(sources) // FEWEST_IN))
            self._table.keep([chunk for chunk, count in used.items() if count >= fewest])
            if len(sources) >= FEWEST_PAIRS:
                self.goes_in_turn = _goes_in_turn(sources, self.cut(sources, targets))

    def cut(
        self, sources: Sequence[Sequence[Piece]], targets: Sequence[Sequence[Piece]]
    ) -> list[list[Chunk] | None]:
        """The chunk that each piece of each source writes; None where no way to cut the target is known."""
        names = list(self._sounds)
        found = self._cut(self._numbered(sources, targets))
        return [
            [tuple(names[number] for number in chunk) for chunk in found[row]] if row in found else None
            for row in range(len(sources))
        ]

    def _numbered(
        self, sources: Sequence[Sequence[Piece]], targets: Sequence[Sequence[Piece]]
    ) -> dict[int, _Pair]:
        """The pairs that can be cut, by their places in the lists."""
        found: dict[int, _Pair] = {}
        for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
            letters = [self._letters.get(piece) for piece in source]
            sounds = [self._sounds.get(piece) for piece in target]
            if source and len(target) <= self._table.widest * len(source) and None not in (*letters, *sounds):
                found[row] = (letters, sounds)  # type: ignore[assignment]
        return found

    def _cut(self, pairs: Mapping[int, _Pair]) -> dict[int, list[tuple[int, ...]]]:
        made = {}
        for part in _parts(pairs, sorted(pairs)):
            for number, widths in zip(part, _Batch(self._table, pairs, part).likeliest(), strict=True):
                if widths is not None:
                    made[number] = _chunks(pairs[number][1], widths)
        return made


def _goes_in_turn(sources: Sequence[Sequence[Piece]], cut: Sequence[Sequence[Chunk] | None]) -> bool:
    letters: Counter[Piece] = Counter()
    both: Counter[tuple[Piece, Chunk]] = Counter()
    sounds: Counter[Piece] = Counter()
    for source, row in zip(sources, cut, strict=True):
        if row is not None:
            letters.update(source)
            both.update(zip(source, row, strict=True))
            sounds.update(piece for chunk in row for piece in chunk)
    left = sum(count * math.log2(letters[letter] / count) for (letter, _), count in both.items())
    total = sounds.total()
    alone = sum(count * math.log2(total / count) for count in sounds.values())
    return sum(row is not None for row in cut) >= MOST_CUT * len(cut) and left < alone / 2


def _chunks(target: Sequence[int], widths: Sequence[int]) -> list[tuple[int, ...]]:
    ends = accumulate(widths)
    return [tuple(target[end - width : end]) for end, width in zip(ends, widths, strict=True)]


def _parts(pairs: Mapping[int, _Pair], numbers: Sequence[int]) -> Iterator[list[int]]:
    """Numbers of pairs, those of like lengths together."""
    current: list[int] = []
    longest = 0
    for number in sorted(numbers, key=lambda number: tuple(map(len, pairs[number]))):
        source, target = pairs[number]
        longest = max(longest, len(target))
        if current and (len(current) + 1) * len(source) * (longest + 1) > MOST_CELLS:
            yield current
            current, longest = [], len(target)
        current.append(number)
    if current:
        yield current


@dataclass(eq=False)
class _Table:
    """Probabilities (N,) of pairs of a source piece and a chunk, which have numbers `keys` (N,) in ascending order. The
    first two stand for _NEVER and _BEYOND."""

    widest: int
    sounds: int

    def __post_init__(self) -> None:
        self.keys = np.zeros(0, np.int64)
        self.chances = np.array([0.0, 1.0])

    @property
    def _base(self) -> int:
        return self.sounds + 1

    @property
    def _chunks(self) -> int:
        return self._base**self.widest

    def key(self, letter: np.ndarray, chunk: np.ndarray) -> np.ndarray:
        """One number for a source piece and a chunk."""
        return letter.astype(np.int64) * self._chunks + chunk

    def chunk(self, target: np.ndarray, width: int) -> np.ndarray:
        """A number for the chunks of so many pieces that begin at each place: target (B, M + widest) gives (B, M + 1);
        -1 where one reaches beyond the end, at which `target` is -1."""
        length = target.shape[1] - self.widest + 1
        found = np.zeros((len(target), length), np.int64)
        beyond = np.zeros(found.shape, bool)
        for place in range(width):
            piece = target[:, place : place + length]
            beyond |= piece < 0
            found = found * self._base + piece + 1
        return np.where(beyond, -1, found)

    def places(self, letter: np.ndarray, chunk: np.ndarray) -> np.ndarray:
        """Where in `chances` a letter (B, 1) and chunks (B, M) stand; letters beyond the end are -1."""
        asked = self.key(letter, chunk)
        place = np.searchsorted(self.keys, asked).clip(max=max(0, len(self.keys) - 1))
        known = (chunk >= 0) & (self.keys[place] == asked) if len(self.keys) else np.zeros(asked.shape, bool)
        found = np.where(known, place + 2, _NEVER)
        return np.where(letter < 0, np.where(chunk == 0, _BEYOND, _NEVER), found)

    def learn(self, batches: Sequence[_Batch]) -> None:
        """Expectation maximisation from equal probabilities of all chunks that can be."""
        self.keys = np.unique(np.concatenate([np.unique(batch.possible()) for batch in batches]))
        letter = self.keys // self._chunks
        self.chances = np.concatenate([[0.0, 1.0], 1 / np.bincount(letter)[letter]])
        placed = [batch.placed() for batch in batches]
        for _ in range(ROUNDS):
            counts = np.full(len(self.keys), SMALLEST)
            for batch, places in zip(batches, placed, strict=True):
                counts += batch.expected(places)[2:]
            self.chances[2:] = counts / np.bincount(letter, counts)[letter]

    def keep(self, chunks: Sequence[tuple[int, ...]]) -> None:
        """Of chunks of several pieces only these."""
        numbers = [
            reduce(lambda number, piece: number * self._base + piece + 1, chunk, 0) for chunk in chunks
        ]
        own = self.keys % self._chunks
        self.chances[2:][(own >= self._base) & ~np.isin(own, numbers)] = 0.0


class _Batch:
    """Pairs that are handled together: letters (B, N) and sounds (B, M + widest), -1 beyond their ends."""

    def __init__(self, table: _Table, pairs: Mapping[int, _Pair], numbers: Sequence[int]) -> None:
        self.table = table
        rows = [pairs[number] for number in numbers]
        self.lengths = np.array([len(target) for _, target in rows])
        self.stops = np.array([len(source) for source, _ in rows])
        self.shape = (len(rows), int(self.lengths.max()) + 1)
        self.letters = np.full((len(rows), int(self.stops.max())), -1)
        self.sounds = np.full((len(rows), int(self.lengths.max()) + table.widest), -1)
        for row, (source, target) in enumerate(rows):
            self.letters[row, : len(source)] = source
            self.sounds[row, : len(target)] = target

    def possible(self) -> np.ndarray:
        """The keys of all chunks that a letter could write."""
        found = []
        for width in range(self.table.widest + 1):
            chunk = self.table.chunk(self.sounds, width)
            for place in range(self.letters.shape[1]):
                letter = self.letters[:, place, None]
                keys = self.table.key(letter, chunk)
                found.append(keys[(chunk >= 0) & (letter >= 0)])
        return np.concatenate(found)

    def placed(self) -> np.ndarray:
        """Where in the table each letter and chunk stand: (N, widest + 1, B, M + 1)."""
        chunks = [self.table.chunk(self.sounds, width) for width in range(self.table.widest + 1)]
        return np.stack(
            [
                np.stack([self.table.places(letter[:, None], chunk) for chunk in chunks])
                for letter in self.letters.T
            ]
        ).astype(np.int32)

    def expected(self, placed: np.ndarray) -> np.ndarray:
        """How often each entry of the table is expected to be used."""
        rows, chances = np.arange(len(self.lengths)), self.table.chances
        steps = len(placed)
        forward = [np.zeros(self.shape)]
        forward[0][:, 0] = 1
        for places in placed:
            forward.append(_normal(_moved(forward[-1], chances[places])))
        after = np.zeros(self.shape)
        after[rows, self.lengths] = 1
        counts = np.zeros(len(chances))
        for step in range(steps - 1, -1, -1):
            own = chances[placed[step]]
            shares = own * forward[step]
            for width in range(len(own)):
                shares[width, :, : shares.shape[2] - width] *= after[:, width:]
                shares[width, :, shares.shape[2] - width :] = 0
            total = shares.sum((0, 2), keepdims=True)
            shares = np.divide(shares, total, out=np.zeros_like(shares), where=total > 0)
            counts += np.bincount(placed[step].ravel(), shares.ravel(), len(counts))
            before = np.zeros_like(after)
            for width in range(len(own)):
                before[:, : before.shape[1] - width] += (
                    own[width, :, : before.shape[1] - width] * after[:, width:]
                )
            after = _normal(before)
        return counts

    def likeliest(self) -> list[list[int] | None]:
        """How many pieces each letter of each source writes, the likeliest way."""
        placed = self.placed()
        best = np.full(self.shape, -np.inf)
        best[:, 0] = 0
        widths = []
        for places in placed:
            with np.errstate(divide="ignore"):
                own = np.log(self.table.chances[places])
            moved = np.full((len(own), *best.shape), -np.inf)
            for width in range(len(own)):
                moved[width, :, width:] = (
                    best[:, : best.shape[1] - width] + own[width, :, : best.shape[1] - width]
                )
            widths.append(moved.argmax(0))
            best = moved.max(0)
        made: list[list[int] | None] = []
        for row, (stop, end) in enumerate(zip(self.stops.tolist(), self.lengths.tolist(), strict=True)):
            if best[row, end] == -np.inf:
                made.append(None)
                continue
            own_widths = []
            for step in range(stop - 1, -1, -1):
                own_widths.append(int(widths[step][row, end]))
                end -= own_widths[-1]
            made.append(own_widths[::-1])
        return made


def _moved(sums: np.ndarray, own: np.ndarray) -> np.ndarray:
    """One letter further: sums (B, M + 1) and the chances of chunks (widest + 1, B, M + 1)."""
    made = sums * own[0]
    for width in range(1, len(own)):
        made[:, width:] += (sums * own[width])[:, : sums.shape[1] - width]
    return made


def _normal(sums: np.ndarray) -> np.ndarray:
    total = sums.sum(1, keepdims=True)
    return np.divide(sums, total, out=np.zeros_like(sums), where=total > 0)
