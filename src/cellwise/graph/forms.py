"""Weights of gates that are made of others: W - W^T, a product of two narrow matrices, blocks on a diagonal.

A form is a mark on a gate, as `linear` is. Its parameters are those of the layer; the weight that they make is made
once in a call, and the kernels are given it as they are given any other. Two forms have no parameters: a triangle of
ones, by which sums are taken from the first unit on, and a matrix whose numbers are given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor

SKEW, SYMMETRIC_SKEW, LOW_RANK, BLOCKS = "skew", "symmetric_skew", "low_rank", "block_diagonal"
CUMSUM, FIXED = "cumsum", "fixed"
MOST = 2**20  # rank or blocks
MOST_GIVEN = 2**16  # numbers of a given matrix


class Form(NamedTuple):
    """How the weight of a gate is made: the name of a row of FORMS, and the number in it; of a given matrix its numbers
    as a text (`text_of_rows`).
    """

    kind: str
    number: float | str

    def __str__(self) -> str:
        return f"{self.kind}={self.number if isinstance(self.number, str) else repr(self.number)}"


@dataclass(frozen=True)
class FormKind:
    """A way to make a weight of shape (R, C), R and C being H, or C the size D of the input.

    Args:
        parameters: number, R, C -> shape of each parameter, by what its name has behind that of the gate.
        make: number, its parameters -> the weight (R, C); of a form without parameters: number, H and a tensor of the
            dtype and device that are wanted.
        bound: number, H -> parameters start uniform within it of zero.
        operations: number, R, C -> how many operations make the weight: those of products and others, and of both again
            for the gradients at its parameters.
        misfit: number, R, C -> why there is none of this shape, as the end of a sentence; or None.
        is_valid: whether there is a form with this number.
        written, in_latex: what the weight is, and the gradients at its parameters; {w} is its index, {n} the number,
            {g} what the gate is called.
    """

    parameters: Callable[[Any, Any, Any], Mapping[str, tuple[Any, ...]]]
    make: Callable[..., Tensor]
    bound: Callable[[Any, int], float]
    operations: Callable[[Any, Any, Any], tuple[Any, Any, Any, Any]]
    misfit: Callable[[Any, int, int], str | None]
    is_valid: Callable[[Any], bool]
    written: tuple[tuple[str, str], ...]
    in_latex: tuple[tuple[str, str], ...]
    # Whether a product with it is a function of what it multiplies, since nothing is learned of it, and is written with
    # the function's name, and with W_{w} in gradients only.
    is_function: bool = False
    # Of a function: number -> R and C, where these are not those of what it multiplies.
    size: Callable[[Any], tuple[int, int]] | None = None


def _skew(diagonal: float, a: Tensor) -> Tensor:
    import torch

    made = a - a.mT
    return made - torch.diag(a.new_full((len(a),), diagonal)) if diagonal else made


def _symmetric_skew(beta: float, a: Tensor) -> Tensor:
    return a + (1 - 2 * beta) * a.mT


def _low_rank(_: int, left: Tensor, right: Tensor) -> Tensor:
    return left @ right


def _block_diagonal(count: int, blocks: Tensor) -> Tensor:
    import torch

    *several, _, rows, columns = blocks.shape
    # (blocks, rows, blocks, columns), zero but where both blocks are one.
    spread = torch.diag_embed(blocks.movedim(-3, -1), dim1=-4, dim2=-2)
    return spread.reshape(*several, count * rows, count * columns)


def _triangle(_: int, hidden: int, like: Tensor) -> Tensor:
    return like.new_ones(hidden, hidden).tril()


def text_of_rows(rows: Sequence[Sequence[float]]) -> str:
    """The numbers of a matrix as a text, which a graph carries: `1.0,0.5;0.0,2.0`. Exact."""
    return ";".join(",".join(repr(float(each)) for each in row) for row in rows)


def rows_of_text(text: str) -> tuple[tuple[float, ...], ...]:
    """The rows of numbers that `text_of_rows` wrote."""
    return tuple(tuple(float(each) for each in row.split(",")) for row in text.split(";"))


def size_of_text(text: str) -> tuple[int, int]:
    """Rows and columns of such a matrix."""
    rows, _, _ = text.partition(";")
    return text.count(";") + 1, rows.count(",") + 1


@lru_cache(maxsize=128)
def _array(text: str) -> Any:
    import numpy as np

    return np.array(rows_of_text(text))


def _given(text: str, _: int, like: Tensor) -> Tensor:
    import torch

    if torch.compiler.is_compiling():  # which knows numbers as constants, and no arrays of others
        return like.new_tensor(rows_of_text(text))
    return torch.from_numpy(_array(text)).to(like)


def _is_given(text: Any) -> bool:
    if not isinstance(text, str):
        return False
    rows, columns = size_of_text(text)
    if rows * columns > MOST_GIVEN:
        return False
    found = rows_of_text(text)
    whole = all(len(row) == columns and all(map(math.isfinite, row)) for row in found)
    return whole and text_of_rows(found) == text


def _is_count(number: Any) -> bool:
    return type(number) is int and 0 < number <= MOST


def _is_finite(number: Any) -> bool:
    return type(number) is float and math.isfinite(number)


def _no_square(_: float, rows: int, columns: int) -> str | None:
    return None if rows == columns else f"a square, not ({rows}, {columns})"


def _block_misfit(count: int, rows: int, columns: int) -> str | None:
    uneven = next((size for size in (rows, columns) if size % count), None)
    return None if uneven is None else f"{count} blocks, of which {uneven} is no multiple"


FORMS: dict[str, FormKind] = {
    SKEW: FormKind(
        parameters=lambda n, rows, columns: {"": (rows, columns)},
        make=_skew,
        bound=lambda n, hidden: 1 / math.sqrt(hidden),
        operations=lambda n, rows, columns: (0, (2 if n else 1) * rows * columns, 0, rows * columns),
        misfit=_no_square,
        is_valid=_is_finite,
        written=(("W_{w}", "A_{w} − A_{w}ᵀ − {n} I"), ("δA_{w}", "δW_{w} − δW_{w}ᵀ")),
        in_latex=(
            (r"W_{{{w}}}", r"A_{{{w}}} - A_{{{w}}}^\top - {n}\, I"),
            (r"\delta A_{{{w}}}", r"\delta W_{{{w}}} - \delta W_{{{w}}}^\top"),
        ),
    ),
    SYMMETRIC_SKEW: FormKind(
        parameters=lambda n, rows, columns: {"": (rows, columns)},
        make=_symmetric_skew,
        bound=lambda n, hidden: 1 / math.sqrt(hidden),
        operations=lambda n, rows, columns: (0, 2 * rows * columns, 0, 2 * rows * columns),
        misfit=_no_square,
        is_valid=_is_finite,
        written=(
            ("W_{w}", "(1 − {n}) (A_{w} + A_{w}ᵀ) + {n} (A_{w} − A_{w}ᵀ)"),
            ("δA_{w}", "(1 − {n}) (δW_{w} + δW_{w}ᵀ) + {n} (δW_{w} − δW_{w}ᵀ)"),
        ),
        in_latex=(
            (r"W_{{{w}}}", r"(1 - {n}) (A_{{{w}}} + A_{{{w}}}^\top) + {n}\, (A_{{{w}}} - A_{{{w}}}^\top)"),
            (
                r"\delta A_{{{w}}}",
                r"(1 - {n}) (\delta W_{{{w}}} + \delta W_{{{w}}}^\top)"
                r" + {n}\, (\delta W_{{{w}}} - \delta W_{{{w}}}^\top)",
            ),
        ),
    ),
    LOW_RANK: FormKind(
        parameters=lambda n, rows, columns: {"_left": (rows, n), "_right": (n, columns)},
        make=_low_rank,
        # So that the numbers of the product vary as those of a weight that is drawn whole.
        bound=lambda n, hidden: (3 / (hidden * n)) ** 0.25,
        operations=lambda n, rows, columns: (2 * n * rows * columns, 0, 4 * n * rows * columns, 0),
        misfit=lambda n, rows, columns: None,
        is_valid=_is_count,
        written=(
            ("W_{w}", "L_{w} R_{w}, of rank {n}"),
            ("δL_{w}", "δW_{w} R_{w}ᵀ"),
            ("δR_{w}", "L_{w}ᵀ δW_{w}"),
        ),
        in_latex=(
            (r"W_{{{w}}}", r"L_{{{w}}} R_{{{w}}} \qquad (\text{{rank }} {n})"),
            (r"\delta L_{{{w}}}", r"\delta W_{{{w}}} R_{{{w}}}^\top"),
            (r"\delta R_{{{w}}}", r"L_{{{w}}}^\top \delta W_{{{w}}}"),
        ),
    ),
    BLOCKS: FormKind(
        parameters=lambda n, rows, columns: {"": (n, _nth(rows, n), _nth(columns, n))},
        make=_block_diagonal,
        bound=lambda n, hidden: math.sqrt(n / hidden),
        operations=lambda n, rows, columns: (0, 0, 0, 0),
        misfit=_block_misfit,
        is_valid=_is_count,
        written=(("W_{w}", "diag(B_{w}1, …, B_{w}{n})"), ("δB_{w}k", "block k of δW_{w}")),
        in_latex=(
            (r"W_{{{w}}}", r"\operatorname{{diag}}(B_{{{w},1}}, \ldots, B_{{{w},{n}}})"),
            (r"\delta B_{{{w},k}}", r"(\delta W_{{{w}}})_{{k,k}}"),
        ),
    ),
    CUMSUM: FormKind(
        parameters=lambda n, rows, columns: {},
        make=_triangle,
        bound=lambda n, hidden: 0.0,
        operations=lambda n, rows, columns: (0, 0, 0, 0),
        misfit=_no_square,
        is_valid=lambda n: n == 1,
        written=(("W_{w}", "1 up to each unit, 0 beyond it"),),
        in_latex=((r"W_{{{w}}}", r"(1 \text{{ where }} k \le j \text{{, else }} 0)_{{jk}}"),),
        is_function=True,
    ),
    FIXED: FormKind(
        parameters=lambda n, rows, columns: {},
        make=_given,
        bound=lambda n, hidden: 0.0,
        operations=lambda n, rows, columns: (0, 0, 0, 0),
        misfit=lambda n, rows, columns: None,  # units follow from its size
        is_valid=_is_given,
        written=(("W_{w}", "{g}"),),
        in_latex=((r"W_{{{w}}}", "{g}"),),
        is_function=True,
        size=size_of_text,
    ),
}


def _nth(size: Any, count: int) -> Any:
    """A size, a number or a formula, over a number."""
    return size // count


def made(form: Form, parameters: Sequence[Tensor], hidden: int, like: Tensor) -> Tensor:
    """The weight of a gate of `hidden` units, made of its parameters; of the dtype and on the device of `like`."""
    make = FORMS[form.kind].make
    return make(form.number, *parameters) if parameters else make(form.number, hidden, like)


def stems_of(kind: str, gate: str, form: Form) -> tuple[str, ...]:
    """What the parameters are called that make the weight of a gate, without the layer's suffix."""
    return tuple(f"weight_{kind}_{gate}{suffix}" for suffix in FORMS[form.kind].parameters(form.number, 0, 0))


def apart_stem(gate: str) -> str:
    """What the recurrent weight of a gate is called that is learned as it is and stands apart from the others."""
    return f"weight_hh_{gate}"


def form_of(mark: str) -> Form:
    """The form that a mark says, as `str(form)` writes it. ValueError of one that there is not."""
    kind, _, number = mark.partition("=")
    if kind not in FORMS:
        raise ValueError(f"{mark[:40]!r} is no form of a weight")
    form = Form(kind, _READ.get(kind, int)(number))
    if str(form) != mark or not FORMS[kind].is_valid(form.number):
        raise ValueError(f"{mark[:40]!r} is no form of a weight")
    return form


# How the number of a form is read; that of all others is a whole number.
_READ: dict[str, Callable[[str], Any]] = {SKEW: float, SYMMETRIC_SKEW: float, FIXED: str}
