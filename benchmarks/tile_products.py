"""The routine of bfloat16 products on AMX's tile registers beside the same without them, by number of rows.

    python benchmarks/tile_products.py [--shapes 64,512,1024 ...] [--seconds 1]

A shape is rows, numbers of an operand, units. Both sides take turns in one process, on one thread, in processor time;
printed are GFLOP/s, the fastest and the median of the rounds. On a machine without AMX there is one side. From how many
rows on tiles are used, `amx.FEWEST_ROWS`, has been estimated, not measured: the shapes of few rows are about that.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import numpy as np
from llvmlite import ir

from cellwise.backends.cpu.amx import tile_rows, tiles_for
from cellwise.backends.cpu.amx_support import in_words, with_tiles
from cellwise.backends.cpu.bf16 import WORD
from cellwise.backends.cpu.bf16_products import bf16_routine, bf16_routine_name
from cellwise.backends.cpu.code import I64, POINTER, Code
from cellwise.backends.cpu.compile import load, object_code
from cellwise.backends.cpu.products import CALL, TERM, Products
from cellwise.backends.cpu.target import Target, host

SHAPES = (
    *(f"{rows},256,1024" for rows in (8, 12, 16, 24, 32, 64)),
    "16,128,512",
    "64,128,512",
    "64,512,2048",
    "20,1312,2624",
)
_WIDTH, _PANELS = 4, 2  # as an LSTM's four gates have them


class Turns(Code):
    """void turns(int64 *call, int64 count): the routine for so many pairs, from the first again after the last."""

    kinds = (POINTER, I64)

    def emit(self, pairs: int) -> ir.Module:
        call, count = self.function.args
        routine = self.declared(bf16_routine_name(_WIDTH, self.target), Products.kinds)
        tiles = tiles_for(self)
        if tiles is not None:
            tiles.configure(tile_rows(self, self.load_whole(call, CALL.index("rows"))))
        with self.loop("turn", count) as turn:
            self.b.call(routine, [call, self.b.urem(turn, self.whole(pairs))])
        if tiles is not None:
            tiles.release()
        self.b.ret_void()
        return self.module


class Side:
    """One way, on numbers of its own."""

    def __init__(self, target: Target, rows: int, length: int, units: int) -> None:
        lanes, draw = target.lanes(WORD), np.random.default_rng(0)
        self.pairs = -(-units // (_PANELS * _WIDTH * lanes))
        turns = object_code(Turns("turns", WORD, target).emit(self.pairs), target)
        self.run = load("turns", turns, bf16_routine(_WIDTH, target))
        self.seconds: list[float] = []

        def numbers(*shape: int) -> np.ndarray:
            drawn = draw.standard_normal(shape).astype(np.float32)
            return (drawn.view(np.uint32) >> 16).astype(np.uint16)

        wide = -(-length // 32) * 32
        operand, weights = numbers(rows, wide), numbers(self.pairs, _PANELS, wide // 2, _WIDTH, lanes, 2)
        biases = np.zeros((self.pairs, _PANELS, _WIDTH, lanes), np.float32)
        room = np.zeros((_PANELS, rows, _WIDTH, lanes), np.float32)
        words = {"rows": rows, "stride": rows, "panels": _PANELS, "last": -1, "of last": 0, "terms": 1}
        words |= {"room": room.ctypes.data, "biases": biases.ctypes.data}
        term = {"operand": operand.ctypes.data, "first": operand.ctypes.data, "limit": rows, "row": wide}
        term |= {"length": wide, "run": 0, "weights": weights.ctypes.data}
        table = [words[name] for name in CALL] + [term[name] for name in TERM]
        self.call = np.array(table, np.int64)
        self.held = operand, weights, biases, room
        self.operations = 2 * rows * wide * self.pairs * _PANELS * _WIDTH * lanes

    def turn(self, times: int) -> None:
        start = time.thread_time()
        self.run(self.call.ctypes.data, times * self.pairs)
        self.seconds.append((time.thread_time() - start) / times)

    def speeds(self) -> str:
        fastest, middle = (self.operations / each(self.seconds) / 1e9 for each in (min, median))
        return f"{fastest:8.0f} ({middle:.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="ROWS,NUMBERS,UNITS")
    parser.add_argument("--seconds", type=float, default=1.0)
    arguments = parser.parse_args()
    print(in_words(host()))
    ways = {"without": host()} | ({"tiles": with_tiles(host())} if with_tiles(host()).tiles else {})
    print(f"{'rows,numbers,units':20}" + "".join(f"{name:>16}" for name in ways) + "  GFLOP/s")
    for shape in arguments.shapes:
        sizes = [int(each) for each in shape.split(",")]
        sides = [Side(target, *sizes) for target in ways.values()]
        times = max(1, int(2e8 / sides[0].operations))
        end = time.perf_counter() + arguments.seconds
        while time.perf_counter() < end or not sides[0].seconds:
            for side in sides:
                side.turn(times)
        print(f"{shape:20}" + "".join(f"{side.speeds():>16}" for side in sides), flush=True)


if __name__ == "__main__":
    main()
