"""How surprising lines are, and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

if TYPE_CHECKING:
    from cellwise.tasks.text.model import LanguageModel

__all__ = ["bits_by_character", "bits_of_pieces", "score_lines"]


def score_lines(model: LanguageModel, lines: Sequence[str], most: int) -> list[dict[str, Any]]:
    """Of each line that is not empty: `line`, `number` (from 1), `bits`, `bits_per_character`, and up to `most`
    characters (or subwords) in `surprising`, each with `text`, `position` (from 1) and `bits`, the most surprising
    first."""
    kept = [(number, line) for number, line in enumerate(lines, 1) if line]
    rows = []
    for (number, line), bits in zip(kept, model.surprises([line for _, line in kept]), strict=True):
        each = bits_of_pieces(model.pieces(line), bits)
        positions = np.cumsum([1, *(len(text) for text, _ in each)]).tolist()
        order = sorted(range(len(each)), key=lambda i: -each[i][1])[:most]
        surprising = [{"text": each[i][0], "position": positions[i], "bits": each[i][1]} for i in order]
        total = float(bits.sum())
        rows.append(
            {
                "line": line,
                "number": number,
                "bits": total,
                "bits_per_character": total / len(line),
                "surprising": surprising,
            }
        )
    return rows


def bits_of_pieces(pieces: Sequence[tuple[str, int]], bits: Tensor) -> list[tuple[str, float]]:
    """Pieces of a text (see `LanguageModel.pieces`) with the bits of each, from those of each unit (T,)."""
    ends = np.cumsum([count for _, count in pieces])
    sums = np.concatenate([[0.0], bits.numpy().cumsum()])
    own = np.diff(np.concatenate([[0.0], sums[ends]]))
    return [(text, cost) for (text, _), cost in zip(pieces, own.tolist(), strict=True)]


def bits_by_character(pieces: Sequence[tuple[str, float]]) -> np.ndarray:
    """Bits of each character of a text; a piece of several shares its own among them."""
    return np.array([cost / len(piece) for piece, cost in pieces for _ in piece])
