"""Fit the cost models by which `backend="auto"` chooses to what `preference.py` measured.

    python benchmarks/fit_preference.py

reads preference_rows.jsonl beside this file, writes src/cellwise/backends/preference_table.json, and prints for each
model how far it is from calls that were left out of the fit, how often the choice would then have been a loss of more
than 5 %, the worst of these, and how much of what there was to gain is not taken.
"""

from __future__ import annotations

import argparse
import json
import math
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from preference import NAMED, ROWS, ragged_lengths

from cellwise import __version__
from cellwise.backends import cost_model
from cellwise.backends.cost_model import (
    CPU,
    MODES,
    NATIVE,
    TERMS,
    Key,
    LayerSize,
    Model,
    has_blocks,
    lanes_of,
    polynomial_terms,
    sizes_of,
)
from cellwise.backends.preference import margin_of

_FOLDS = 6
_FEWEST = 12  # rows for a model
_TYPICAL = 0.1  # an error beyond this, of a logarithm, is taken for a disturbance and counts less
_NAMED = 3.0  # the importance of a shape that is asked about most, beside one that was drawn
_STIFFNESS = 0.3  # of the polynomial: it only bends where many rows ask for it


def size_of(row: dict[str, Any]) -> LayerSize:
    T, B, D, H = row["shape"]
    return LayerSize(T, B, int(ragged_lengths(T, B).sum()) if row["ragged"] else T * B, D, H)


def non_negative(A: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The x without a negative number that brings A x nearest to b: coordinate descent."""
    scale = np.sqrt((A**2).sum(0)) + 1e-30
    A = A / scale
    square, side, x = A.T @ A, A.T @ b, np.zeros(A.shape[1])
    for _ in range(120):
        for j in range(len(x)):
            x[j] = max(0.0, x[j] + (side[j] - square[j] @ x) / (square[j, j] + 1e-12))
    return x / scale


def fitted_factors(terms: np.ndarray, seconds: np.ndarray, importance: np.ndarray) -> np.ndarray:
    """Of least relative error; rows that were disturbed count less."""
    weights = importance
    for _ in range(4):
        x = non_negative(terms / seconds[:, None] * weights[:, None], weights)
        errors = np.abs(np.log(np.maximum(terms @ x, 1e-12) / seconds))
        weights = importance * np.sqrt(1 / np.maximum(errors / _TYPICAL, 1))
    return x


def fitted_polynomial(terms: np.ndarray, wanted: np.ndarray, importance: np.ndarray) -> np.ndarray:
    weights = importance
    for _ in range(4):
        square = terms.T @ (terms * weights[:, None]) + _STIFFNESS * np.eye(terms.shape[1])
        x = np.linalg.solve(square, terms.T @ (wanted * weights))
        weights = importance / np.maximum(np.abs(terms @ x - wanted) / _TYPICAL, 1)
    return x


def fitted(rows: list[dict[str, Any]], mode: str, uncertainty: float = 0.0) -> Model:
    sizes, first = [size_of(row) for row in rows], rows[0]
    in_blocks = has_blocks(first["dtype"])
    lanes = lanes_of(first["vectors"], first["dtype"])
    importance = np.array([_NAMED if tuple(row["shape"]) in NAMED else 1.0 for row in rows])
    factors, times = {}, {}
    for side, place in ((NATIVE, 0), (CPU, 1)):
        options = {"in_blocks": in_blocks, "lanes": lanes} if side == CPU else {}
        terms = np.array([TERMS[side](size, **options) for size in sizes], float)
        seconds = np.array([row[mode][place] for row in rows])
        factors[side] = fitted_factors(terms, seconds, importance)
        times[side] = terms @ factors[side]
    unexplained = measured_ratios(rows, mode) - np.log(times[NATIVE] / times[CPU])
    polynomial = fitted_polynomial(
        np.array([polynomial_terms(size) for size in sizes]), unexplained, importance
    )
    largest = LayerSize(*np.array(sizes).max(0).tolist())
    plain = {side: tuple(each.tolist()) for side, each in factors.items()}
    model = Model(plain, tuple(polynomial.tolist()), largest, uncertainty, in_blocks=in_blocks, lanes=lanes)
    beyond = measured_ratios(rows, mode) - np.log([model.ratio([size]) for size in sizes])
    known = [
        (sizes_of(size), float(more))
        for size, row, more in zip(sizes, rows, beyond, strict=True)
        if tuple(row["shape"]) in NAMED
    ]
    return replace(model, known=tuple(known))


def measured_ratios(rows: list[dict[str, Any]], mode: str) -> np.ndarray:
    return np.log([row[mode][0] / row[mode][1] for row in rows])


def left_out(rows: list[dict[str, Any]], mode: str) -> np.ndarray:
    """The logarithm of each row's ratio, by models that did not see it."""
    found = np.empty(len(rows))
    for fold in range(_FOLDS):
        model = fitted([row for i, row in enumerate(rows) if i % _FOLDS != fold], mode)
        for i in range(fold, len(rows), _FOLDS):
            found[i] = math.log(model.ratio([size_of(rows[i])]))
    return found


def model_of(key: Key, rows: list[dict[str, Any]]) -> Model:
    measured, estimated = measured_ratios(rows, key.mode), left_out(rows, key.mode)
    # The median is what is typical, whatever was disturbed; 1.48 times it is a standard deviation.
    model = fitted(rows, key.mode, 1.48 * float(np.median(np.abs(estimated - measured))))
    taken = estimated > math.log(margin_of(model.uncertainty))
    worst = f"{math.exp(measured[taken].min()):.2f}" if taken.any() else "-"
    losses = int((measured[taken] < math.log(0.95)).sum())
    missed = np.exp(np.where(taken, 0, np.maximum(measured, 0))).mean() - 1
    form = "ragged" if key.ragged else "dense"
    what = f"{key.vectors:2} {key.family:14} {key.dtype} {form:6} {key.mode:6}"
    print(
        f"{what} {len(rows):4} rows, uncertain by {model.uncertainty:4.2f}, kernels for {taken.sum():3}, "
        f"losses {losses} (worst {worst}), not taken {missed:.1%}"
    )
    return model


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("rows", nargs="*", type=Path, default=[ROWS])
    out = Path(cost_model.__file__).with_name(cost_model.TABLE)
    parser.add_argument("--out", type=Path, default=out)
    arguments = parser.parse_args()
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for file in arguments.rows:
        for row in map(json.loads, file.read_text().splitlines()):
            group = (row["vectors"], row["family"], row["dtype"], row["ragged"])
            groups[group].append(row)
    models = {
        key: model_of(key, rows)
        for group, rows in sorted(groups.items())
        if len(rows) >= _FEWEST
        for key in (Key(*group, mode) for mode in MODES)
    }
    made = {"by": "benchmarks/fit_preference.py", "cellwise": __version__, "torch": torch.__version__}
    arguments.out.write_text(cost_model.write(models, made))
    print(f"{len(models)} models: {arguments.out}")


if __name__ == "__main__":
    main()
