"""How surprising lines are, and where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from cellwise.tasks.data.optional import require
from cellwise.tasks.report.charts import COLOURS

if TYPE_CHECKING:
    from cellwise.tasks.text.model import LanguageModel

__all__ = ["bits_by_character", "bits_of_pieces", "score_lines", "write_score_page"]

TEMPLATES = Path(__file__).parent / "templates"
WIDTH = 2  # bits of a shade
SHADES = (0.1, 0.2, 0.3, 0.42, 0.55, 0.7)  # their opacity; below the first there is none


def score_lines(model: LanguageModel, lines: Sequence[str], most: int) -> list[dict[str, Any]]:
    """Of each line that is not empty: `line`, `number` (from 1), `bits`, `bits_per_character`, and up to `most`
    characters (or subwords) in `surprising`, each with `text`, `position` (from 1) and `bits`, the most surprising
    first."""
    rows = []
    for number, each in costs_of_lines(model, lines):
        line, total = "".join(text for text, _ in each), sum(bits for _, bits in each)
        positions = np.cumsum([1, *(len(text) for text, _ in each)]).tolist()
        order = sorted(range(len(each)), key=lambda i: -each[i][1])[:most]
        surprising = [{"text": each[i][0], "position": positions[i], "bits": each[i][1]} for i in order]
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


def costs_of_lines(
    model: LanguageModel, lines: Sequence[str]
) -> Iterator[tuple[int, list[tuple[str, float]]]]:
    """The number, from 1, of each line that is not empty, and its pieces with their bits."""
    kept = [(number, line) for number, line in enumerate(lines, 1) if line]
    for (number, line), bits in zip(kept, model.surprises([line for _, line in kept]), strict=True):
        yield number, bits_of_pieces(model.pieces(line), bits)


def write_score_page(path: Path, model: LanguageModel, lines: Sequence[str]) -> None:
    """An HTML page, without a script, of the lines with their pieces shaded by their bits.

    Raises TaskError if jinja2 is not installed."""
    jinja2 = require("jinja2")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    shown = [
        {
            "number": number,
            "per_character": sum(bits for _, bits in each) / sum(len(text) for text, _ in each),
            "pieces": [(text, bits, min(int(bits / WIDTH), len(SHADES))) for text, bits in each],
        }
        for number, each in costs_of_lines(model, lines)
    ]
    page = environment.get_template("score.html").render(
        model=model.model_name, unit=model.unit[:-1], lines=shown, steps=SHADES, width=WIDTH, colours=COLOURS
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf8", errors="replace")


def bits_of_pieces(pieces: Sequence[tuple[str, int]], bits: Tensor) -> list[tuple[str, float]]:
    """Pieces of a text (see `LanguageModel.pieces`) with the bits of each, from those of each unit (T,)."""
    ends = np.cumsum([count for _, count in pieces])
    sums = np.concatenate([[0.0], bits.numpy().cumsum()])
    own = np.diff(np.concatenate([[0.0], sums[ends]]))
    return [(text, cost) for (text, _), cost in zip(pieces, own.tolist(), strict=True)]


def bits_by_character(pieces: Sequence[tuple[str, float]]) -> np.ndarray:
    """Bits of each character of a text; a piece of several shares its own among them."""
    return np.array([cost / len(piece) for piece, cost in pieces for _ in piece])
