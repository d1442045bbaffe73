"""How surprising lines are, and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from cellwise.tasks.text.model import LanguageModel

__all__ = ["bits_by_character", "score_lines"]


def score_lines(model: LanguageModel, lines: Sequence[str], most: int) -> list[dict[str, Any]]:
    """Of each line that is not empty: `line`, `number` (from 1), `bits`, `bits_per_character`, and up to `most`
    characters in `surprising`, each with `text`, `position` (from 1) and `bits`, the most surprising first."""
    kept = [(number, line) for number, line in enumerate(lines, 1) if line]
    rows = []
    for (number, line), bits in zip(kept, model.surprises([line for _, line in kept]), strict=True):
        each = bits_by_character(line, bits)
        order = sorted(range(len(line)), key=lambda i: -each[i])[:most]
        surprising = [{"text": line[i], "position": i + 1, "bits": each[i]} for i in order]
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


def bits_by_character(text: str, bits: Tensor) -> list[float]:
    """Bits of each character of a text, where a model may have given those of each byte."""
    if len(bits) == len(text):
        return bits.tolist()
    found, begin = [], 0
    for character in text:
        end = begin + len(character.encode("utf8", "surrogatepass"))
        found.append(float(bits[begin:end].sum()))
        begin = end
    return found
