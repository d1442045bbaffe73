"""A network that reads what it wrote: the likeliest of some scores becomes the next input, many steps in one call.

A step of a recurrent layer, the scores from its output, the choice, the row of a table that it stands for: four calls
of torch that take longer than the layer. Here they are links of one chain, which goes round without Python:

    scores (V,) = noise[i] + output weight      `small_products`, added to what stands in `noise`
    id = argmax of scores                       `choose`, which also writes down where row `id` of the table is
    output, state = step(table[id], state)      the layer's kernel
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from llvmlite import ir
from torch import Tensor

from cellwise.backends.base import Follower
from cellwise.backends.cpu.chain import WORDS, Chain
from cellwise.backends.cpu.code import POINTER, Code
from cellwise.backends.cpu.compile import load, object_code
from cellwise.backends.cpu.small_products import KINDS, PRODUCT, small_products
from cellwise.backends.cpu.target import Target
from cellwise.errors import InputError

if TYPE_CHECKING:
    from cellwise.backends.cpu.stepper import CpuStepper

# scores: V numbers; id: where the place of the largest is written; then, where the address of its row is.
CHOICE = ("scores", "V", "id", "row", "table", "bytes of a row")


def emit_choose(element_bytes: int, target: Target) -> ir.Module:
    """void choose(int64 *choice): the largest of some scores. A score that is no number is the largest, as in torch."""
    code = Code("choose", element_bytes, target)
    b, whole, element = code.b, code.whole, code.v.element
    choice, _ = code.function.args
    word = {name: code.load_whole(choice, place, name) for place, name in enumerate(CHOICE)}
    scores = b.inttoptr(word["scores"], POINTER)
    found: list[ir.Value] = [ir.Constant(element, float("-inf")), whole(0)]
    with code.summing("v", word["V"], found) as (v, (best, at), following):
        score = code.load_one(code.at(scores, v))
        # The first that is no number stays.
        is_none = b.and_(b.fcmp_unordered("uno", score, score), b.fcmp_ordered("ord", best, best))
        is_larger = b.or_(b.fcmp_ordered(">", score, best), is_none)
        following += [b.select(is_larger, score, best), b.select(is_larger, v, at)]
    address = b.add(word["table"], b.mul(found[1], word["bytes of a row"]))
    for name, value in (("id", found[1]), ("row", address)):
        b.store(value, b.inttoptr(word[name], POINTER))
    b.ret_void()
    return code.module


@cache
def _choose(element_bytes: int, target: Target) -> Any:
    return load("choose", object_code(emit_choose(element_bytes, target), target))


def _rows(table: np.ndarray) -> list[int]:
    """The addresses of a table's rows."""
    first, size = table.ctypes.data, table.strides[0]
    return [first + number * size for number in range(len(table))]


class CpuFollower(Follower):
    """Goes on from a stepper's states, for one row; made by `CpuStepper.follower`."""

    def __init__(self, stepper: CpuStepper, table: Tensor, weight: Tensor, most: int) -> None:
        dtype, (height, width) = table.dtype, weight.shape
        self._stepper, self._table, self._weight = stepper, table, weight
        self._addresses = table.data_ptr(), weight.data_ptr()
        self._noise = torch.zeros(most, width, dtype=dtype, device="cpu")
        self._ids = np.zeros(most, np.int64)
        target, size = stepper.target, dtype.itemsize
        products, choose = small_products(size, target), _choose(size, target)
        read = stepper.output.data_ptr()
        scores = self._noise.data_ptr() + np.arange(most) * width * size
        ids = self._ids.ctypes.data + np.arange(most) * self._ids.itemsize
        counts = [int(kind is PRODUCT) for kind in KINDS]
        product = (*counts, read, 1, weight.data_ptr(), width, height, 0, width, 1, width, 1)
        self._products = np.tile(np.array(product, np.int64), (most, 1))
        self._products[:, len(counts) + PRODUCT.index("out")] = scores
        self._choices = np.zeros((2, most, len(CHOICE)), np.int64)
        row_bytes = table.shape[1] * size
        links: tuple[list[tuple[Any, int, int]], ...] = ([], [])
        turns = [stepper.links(turn) for turn in (0, 1)]
        for turn, choices in enumerate(self._choices):
            choices[:] = (0, width, 0, 0, table.data_ptr(), row_bytes)
            choices[:, CHOICE.index("scores")], choices[:, CHOICE.index("id")] = scores, ids
            for step, (product_at, choice_at) in enumerate(
                zip(_rows(self._products), _rows(choices), strict=True)
            ):
                choices[step, CHOICE.index("row")], kernels = turns[(turn + step) % 2]
                links[turn].extend([(products, product_at, 0), (choose, choice_at, 0), *kernels])
        self._chains = tuple(map(Chain, links))
        self._step_words = len(links[0]) // most * WORDS

    def run(self, read: Tensor | None, noise: Tensor) -> list[int]:
        if (self._table.data_ptr(), self._weight.data_ptr()) != self._addresses:
            raise InputError("the table or the weight was given other memory; make another follower.")
        self._stepper.keep_output()
        steps, chain = len(noise), self._chains[self._stepper.turn]
        self._noise[:steps] = noise
        if read is not None:
            self._stepper.output[0, : len(read)] = read
        end = steps * self._step_words
        after, chain.links[end] = chain.links[end], 0
        chain.run()
        chain.links[end] = after
        self._stepper.turn = (self._stepper.turn + steps) % 2
        found: list[int] = self._ids[:steps].tolist()
        return found
