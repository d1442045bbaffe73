"""The recurrent products of a program, and their weights in the order in which kernels read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cellwise.plan.program import Buffer, Program, Stage

RECURRENT, INPUT, PROJECTION = "weight_hh", "weight_ih", "weight_hr"
BIASES = ("bias_ih", "bias_hh")


@dataclass(frozen=True)
class Product:
    """Columns of one buffer, side by side, times weights [accumulators, H, columns * H].

    weights: for each accumulator and column the gate whose rows these are, and whether they are transposed.
    stem: the name of the layer's weight; that of proj_size is one block, with the gate "".
    """

    buffer: Buffer
    columns: tuple[int, ...]
    accumulators: tuple[int, ...]
    weights: tuple[tuple[tuple[str, bool], ...], ...]
    stem: str = RECURRENT


def products_of(stage: Stage) -> tuple[Product, ...]:
    """Those of a stage. Terms that read columns of one buffer for the same accumulators are one product."""
    found: dict[tuple[str, Buffer, tuple[int, ...]], list[tuple[int, list[tuple[str, bool]]]]] = {}
    for term in stage.terms:
        if term.weight.stem != INPUT:
            key = term.weight.stem, term.operand.buffer, term.accumulators
            parts = found.setdefault(key, [])
            parts.append(
                (term.operand.column, [(gate, term.weight.transposed) for gate in term.weight.gates])
            )
    made = []
    for (stem, buffer, accumulators), parts in found.items():
        parts.sort(key=lambda part: part[0])
        weights = tuple(tuple(gates[place] for _, gates in parts) for place in range(len(accumulators)))
        made.append(Product(buffer, tuple(column for column, _ in parts), accumulators, weights, stem))
    return tuple(made)


def pack(
    product: Product, gates: Sequence[str], weight: Tensor, hidden: int, width: int, columns: int = 0
) -> Tensor:
    """The weights of a product, [accumulators, width, columns * width], zero in the padding.

    Args:
        gates: the order of the row blocks of `weight`, (gates * hidden, columns of a block).
        width: the rows of a padded block. columns: its columns, if they are not as many.
    """
    blocks = weight.view(len(gates), hidden, -1)
    padding = ((columns or width) - blocks.shape[2], width - hidden)
    if any(padding):
        blocks = torch.nn.functional.pad(blocks, (0, padding[0], 0, padding[1]))
    run = _run([gates.index(columns[0][0]) for columns in product.weights])
    if run is not None and len(product.columns) == 1 and not product.weights[0][0][1]:
        return blocks[run].contiguous()
    rows = [_row(blocks, gates, columns) for columns in product.weights]
    return rows[0].contiguous() if len(rows) == 1 else torch.stack(rows)


def _row(blocks: Tensor, gates: Sequence[str], columns: Sequence[tuple[str, bool]]) -> Tensor:
    """The weights of one accumulator, (width, columns * width)."""
    places = [gates.index(gate) for gate, _ in columns]
    run = _run(places)
    if run is not None and all(transposed for _, transposed in columns):
        part = blocks[run]
        return part.permute(2, 0, 1).reshape(part.shape[2], -1)
    parts = [
        blocks[place].t() if transposed else blocks[place]
        for place, (_, transposed) in zip(places, columns, strict=True)
    ]
    return parts[0] if len(parts) == 1 else torch.cat(parts, 1)


def _run(places: Sequence[int]) -> slice | None:
    """Places one after the other as a slice."""
    first = places[0]
    return (
        slice(first, first + len(places)) if list(places) == list(range(first, first + len(places))) else None
    )


def inputs_of(program: Program) -> tuple[str, ...]:
    """The gates of the input that a program multiplies, none or all: then it wants the products of all steps."""
    terms = (term for stage in program.stages for term in stage.terms)
    return program.graph.input_gates if any(term.weight.stem == INPUT for term in terms) else ()
