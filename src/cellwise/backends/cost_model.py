"""How much longer a call takes on torch's operator than on the kernels, from measurements.

The time of each side is a sum of a few terms. A term is work that grows with the sizes in one way (a call, a step, a
product, weights that are read again at every step), and its factor the seconds of a unit of it. What the terms do not
explain of the measured ratios is a polynomial of the sizes' logarithms. `benchmarks/preference.py` measures calls and
`benchmarks/fit_preference.py` fits the factors and writes preference_table.json.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from operator import mul
from typing import NamedTuple

from cellwise.backends.cpu.blocks import is_worth_it
from cellwise.backends.cpu.few_rows import MOST_SMALL, are_few_transposed, is_small, most_in_place

TABLE, BF16_TABLE = "preference_table.json", "preference_table_bfloat16.json"
NATIVE, CPU = "native", "cpu"


class LayerSize(NamedTuple):
    """One layer in one direction: T steps, B rows, N valid steps of all rows, D inputs, H hidden units."""

    steps: int
    batch: int
    rows: int
    input: int
    hidden: int


class Key(NamedTuple):
    """Calls that are measured and fitted together.

    family: the equations and options that torch has one piece of code for. vectors: bytes of the processor's widest.
    mode: one of MODES.
    """

    vectors: int
    family: str
    dtype: str
    ragged: bool
    mode: str


# The forward pass alone; the forward pass that records for a backward pass; both passes.
INFER, RECORD, TRAIN = MODES = ("infer", "record", "train")


@dataclass(frozen=True)
class Model:
    """The factors of both sides' terms, those of the polynomial, the largest sizes that were measured, and by how much
    the ratio is uncertain: the standard deviation of its logarithm at calls that were left out of the fit.

    known: calls that are asked about most, (T, rows of a step, D, H), and by how much the logarithm of their measured
    ratio is larger than all the rest says; a call near one of them gets most of that. in_blocks, lanes: what kernels do
    otherwise for some sizes (`has_blocks`, `lanes_of`).
    """

    factors: Mapping[str, tuple[float, ...]]
    polynomial: tuple[float, ...]
    largest: LayerSize
    uncertainty: float
    known: tuple[tuple[tuple[float, ...], float], ...] = ()
    in_blocks: bool = True
    lanes: int = 0

    def ratio(self, sizes: Sequence[LayerSize], threads: int = 1) -> float:
        """How many times as long torch's operator takes as the kernels, for all these layers and directions.

        With two threads it is that of one: measured, its logarithm was larger by 0.1 in the mean (docs/decisions/0077).
        More threads are what is known of one, by how either side uses them: torch shares all that grows with the rows,
        at best perfectly, the kernels share the rows, where that is worth it. They are never thought to gain more by
        threads than torch.
        """
        alone = self._seconds(NATIVE, sizes, 1) / self._seconds(CPU, sizes, 1)
        if threads <= MEASURED_THREADS:
            return alone
        return min(alone, self._seconds(NATIVE, sizes, threads) / self._seconds(CPU, sizes, threads))

    def uncertainty_at(self, sizes: Sequence[LayerSize]) -> float:
        """The same for these layers: where each is a known call, a measurement's own spread."""
        nearest = min(
            max([_weight(size, known, _SAME) for known, _ in self.known], default=0.0) for size in sizes
        )
        return self.uncertainty + nearest * (min(_SPREAD, self.uncertainty) - self.uncertainty)

    def _seconds(self, side: str, sizes: Sequence[LayerSize], threads: int) -> float:
        if side == CPU:
            return sum(
                _sum(self.factors[CPU], TERMS[CPU](_share(size, threads), self.in_blocks, self.lanes))
                for size in sizes
            )
        total = 0.0
        for size in sizes:
            alone = TERMS[NATIVE](size)
            shared = [term / threads if place in _SHARED else term for place, term in enumerate(alone)]
            total += _sum(self.factors[NATIVE], shared) * math.exp(self._unexplained(size))
        return total

    def _unexplained(self, size: LayerSize) -> float:
        # Beyond what was measured a polynomial means nothing.
        inside = LayerSize(*map(min, size, self.largest))
        explained = min(1.0, max(-1.0, _sum(self.polynomial, polynomial_terms(inside))))
        total, weights = 0.0, _DOUBT
        for sizes, beyond in self.known:
            weight = _weight(size, sizes, _NEAR)
            total, weights = total + weight * beyond, weights + weight
        return explained + total / weights


def has_blocks(dtype: str) -> bool:
    """Whether there are kernels of this dtype that multiply the inputs of a block of steps at once."""
    return dtype != "bfloat16"


def lanes_of(vectors: int, dtype: str) -> int:
    """Numbers of a vector of kernels that have a shorter way for few rows (`cpu.few_rows`); 0 where there is none."""
    if dtype == "bfloat16":
        return 0
    return vectors // (8 if dtype == "float64" else 4)


def sizes_of(size: LayerSize) -> tuple[float, ...]:
    """T, rows of a step, D and H."""
    T, _, N, D, H = size
    return T, max(1.0, N / T), D, H


def _weight(size: LayerSize, known: Sequence[float], near: float) -> float:
    """1 at a known call, and less the further the logarithms of the sizes are from its own."""
    distance = sum([math.log(a / b) ** 2 for a, b in zip(sizes_of(size), known, strict=True)])
    return math.exp(-distance / (2 * near**2))


def _sum(factors: Sequence[float], terms: Sequence[float]) -> float:
    return sum(map(mul, factors, terms))


def _share(size: LayerSize, threads: int) -> LayerSize:
    """What one of several threads has to do."""
    T, B, N, D, H = size
    work = N * H * (D + H)
    shares = (
        max(1, min(threads, B, work // _WORTH_A_THREAD)) if N > MOST_SMALL or work >= _WORTH_A_CHAIN else 1
    )
    return LayerSize(T, -(-B // shares), -(-N // shares), D, H)


def polynomial_terms(size: LayerSize) -> tuple[float, ...]:
    """Of second degree in the logarithms of T, rows a step, D and H."""
    T, _, N, D, H = size
    logs = [math.log10(max(1, each)) for each in (T, N / max(1, T), D, H)]
    return (1.0, *logs, *(a * b for i, a in enumerate(logs) for b in logs[i:]))


# Calls are near a known one if the logarithms of their sizes differ by so much; a known one may itself be disturbed.
_NEAR, _DOUBT = 0.6, 0.3
# A call is a known one if they differ by less than this; and how far apart two measurements of a call are.
_SAME, _SPREAD = 0.15, 0.1
# Weights of more bytes than this are read from a slower cache at every step. The second is the cache by whose size the
# kernels choose, as it was where calls were measured.
_CACHES = (2**17, 2**20, 2**22)
_GATE_BYTES = 16  # of a weight in four gates
MEASURED_THREADS = 2
_SHARED = range(2, 9)  # of the terms of torch's operator
_WORTH_A_THREAD, _WORTH_A_CHAIN = 625_000, 3_750_000  # multiply-adds of a gate, as `cpu.threads` has them


def _native_terms(size: LayerSize) -> tuple[float, ...]:
    T, _, N, D, H = size
    recurrent = T * H * H
    _, far, farther = (cache < _GATE_BYTES * H * H for cache in _CACHES)
    products = (N * H * D, N * H * H, recurrent, recurrent * far, recurrent * farther)
    return (1, T, N * H, N * D, *products, H * (D + H), T * H, H * D)


def _cpu_terms(size: LayerSize, in_blocks: bool = True, lanes: int = 0) -> tuple[float, ...]:
    T, _, N, D, H = size
    tiles = -(-H // 32) * 32
    filled = _GATE_BYTES * H * (D + H) / _CACHES[1]
    ahead = in_blocks and is_worth_it(T, N / T, D, D / (D + H), filled)
    weights = tiles * (H if ahead else D + H)
    # Six rows at a time share what is read of the weights.
    blocks = T * -(-N // (6 * T)) * weights
    read = [blocks * (cache < _GATE_BYTES * weights) for cache in _CACHES]
    products = 6 * (blocks + (-(-N // 6) * tiles * D if ahead else 0))
    chain = T * size.batch == N and is_small(N, _GATE_BYTES, H, lanes)
    # Weights that are packed, for the pass forward and for the one back.
    packed = 0 if most_in_place(D, H, lanes) >= N else H * (D + H)
    packed_back = 0 if are_few_transposed(T, N, H, lanes) else H * H
    is_padded = not chain and lanes > 0 and H % lanes > 0  # a chain's copies are little
    ways = (not chain, is_padded, is_padded * N * tiles)
    return (1, T, N * tiles, N * D, products, *read, T * weights, packed, packed_back, T * tiles, *ways)


TERMS: dict[str, Callable[..., tuple[float, ...]]] = {NATIVE: _native_terms, CPU: _cpu_terms}


@cache
def models() -> dict[Key, Model]:
    """Those of the shipped tables."""
    texts = [files(__package__).joinpath(table).read_text(encoding="utf8") for table in (TABLE, BF16_TABLE)]
    return {key: model for text in texts for key, model in read(text).items()}


def read(text: str) -> dict[Key, Model]:
    """The models of a table, as `write` made it."""
    found = {}
    for row in json.loads(text)["models"]:
        factors = {side: tuple(row[side]) for side in TERMS}
        key, largest = Key(*row["key"]), LayerSize(*row["largest"])
        known = tuple((tuple(sizes), beyond) for *sizes, beyond in row["known"])
        polynomial, blocks = tuple(row["polynomial"]), has_blocks(key.dtype)
        lanes = lanes_of(key.vectors, key.dtype)
        found[key] = Model(factors, polynomial, largest, row["uncertainty"], known, blocks, lanes)
    return found


def write(found: Mapping[Key, Model], made: Mapping[str, str]) -> str:
    """A table as text; `made` says with what."""
    lines = []
    for key, model in found.items():
        row: dict[str, object] = {"key": list(key), "uncertainty": round(model.uncertainty, 3)}
        row |= {side: [_short(factor) for factor in model.factors[side]] for side in TERMS}
        row |= {"polynomial": [_short(each) for each in model.polynomial], "largest": list(model.largest)}
        row["known"] = [[*map(_short, sizes), _short(beyond)] for sizes, beyond in model.known]
        lines.append(json.dumps(row))
    models = ",\n".join(lines)
    return f'{{"made": {json.dumps(dict(made))}, "models": [\n{models}\n]}}\n'


def _short(number: float) -> float:
    return float(f"{number:.4g}")
