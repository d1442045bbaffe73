"""Whether this process multiplies by the tile registers of AMX.

Three things must be: the processor says that it has them, the system grants them to the process, which it has to be
asked for since they enlarge what it keeps of a thread, and products of known numbers come out as they must. The last
guards against a machine that plays another one badly. All of it is looked at when a kernel of bfloat16 is first made.

CELLWISE_AMX=off does without them. CELLWISE_AMX=loops has loops over memory in their place, on any processor: slow, but
all else is as with AMX, so that one machine can test it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir

from cellwise.backends.cpu.amx import FEWEST_ROWS, INSTRUCTIONS, LOOPS, NUMBERS, tile_rows, tiles_for
from cellwise.backends.cpu.bf16 import WORD
from cellwise.backends.cpu.bf16_products import bf16_routine, bf16_routine_name
from cellwise.backends.cpu.code import I64, POINTER, Code
from cellwise.backends.cpu.compile import load, object_code
from cellwise.backends.cpu.products import CALL, TERM, Products
from cellwise.backends.cpu.target import Target, host
from cellwise.errors import CellwiseError

VARIABLE, OFF = "CELLWISE_AMX", "off"
_FEATURES = ("amx-tile", "amx-bf16")
# x86-64 Linux: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA), which the C library has no function for.
_ARCH_PRCTL, _REQUEST, _TILE_DATA = 158, 0x1023, 18


@dataclass(frozen=True)
class Support:
    """form: what `Target.tiles` is to be. why_not: where a processor has AMX, why it is not used."""

    form: str = ""
    why_not: str = ""


@cache
def support() -> Support:
    """What this process has.

    Raises:
        CellwiseError: CELLWISE_AMX is neither "off" nor "loops".
    """
    asked = os.environ.get(VARIABLE, "")
    if asked not in ("", OFF, LOOPS):
        raise CellwiseError(f"{VARIABLE} is {asked!r}; it must be {OFF} or {LOOPS}, or not set.")
    if asked == LOOPS:
        return Support(LOOPS)
    if not processor_has_tiles():
        return Support()
    if asked == OFF:
        return Support(why_not=f"{VARIABLE}={OFF}")
    if refused := refusal():
        return Support(why_not=f"the system does not grant AMX to this process: {refused}")
    if not computes_what_it_must(replace(host(), tiles=INSTRUCTIONS)):
        return Support(why_not="products of known numbers by AMX came out wrong")
    return Support(INSTRUCTIONS)


def with_tiles(target: Target) -> Target:
    """A target with the tile registers that this process has, if they are its own."""
    if target.tiles:
        return target
    form = support().form
    has_them = target.vector_bytes == 64 and all(f"+{each}" in target.features for each in _FEATURES)
    return replace(target, tiles=form) if form == LOOPS or (form and has_them) else target


def in_words(target: Target) -> str:
    """How kernels for a target multiply bfloat16 numbers."""
    found = f"bfloat16 products by {_way(target)}"
    return f"{found}, without AMX: {support().why_not}" if support().why_not else found


def three_in_words(target: Target) -> str:
    """How kernels multiply float32 numbers where torch's setting allows three products of bfloat16."""
    way = _way(target)
    return f"in calls that are not small, float32 products of three of bfloat16, as torch's settings allow, by {way}"


def _way(target: Target) -> str:
    few = f" from {FEWEST_ROWS} rows on"
    ways = {INSTRUCTIONS: f"AMX{few}", LOOPS: f"loops in place of AMX{few} ({VARIABLE}={LOOPS})"}
    return ways.get(with_tiles(target).tiles) or ("vdpbf16ps" if target.dots else "float32 arithmetic")


@cache
def may_have_tiles() -> bool:
    """Whether it is worth asking for `support`: without AMX nothing is."""
    return bool(os.environ.get(VARIABLE)) or processor_has_tiles()


def processor_has_tiles() -> bool:
    """Whether the processor and the system say so; with narrower vectors than it has they are not asked for."""
    features = llvm.get_host_cpu_features()
    is_whole = host().vector_bytes == 64 and sys.platform.startswith("linux")
    return is_whole and all(features.get(each) for each in _FEATURES)


def refusal() -> str:
    """Ask the system for tile registers, for all threads of the process: empty if it grants them, else why not."""
    system = ctypes.CDLL(None, use_errno=True)
    number, request, what = (ctypes.c_long(each) for each in (_ARCH_PRCTL, _REQUEST, _TILE_DATA))
    return "" if system.syscall(number, request, what) == 0 else os.strerror(ctypes.get_errno())


def computes_what_it_must(target: Target) -> bool:
    """Whether products on a target's tiles are right to the bit: of whole numbers, whose sums are exact in float32."""
    run = on_configured_tiles(_WIDTH, target)
    return all(_is_right(run, rows, lengths, target) for rows, lengths in _CHECKED)


# Tiles of all rows and of some, rows in two tiles and at the end, one operand and two, lengths that are whole tiles.
_WIDTH, _PANELS = 4, 2
_CHECKED = ((9, (32,)), (16, (64, 32)), (40, (96, 64)), (64, (32,)))


def on_configured_tiles(width: int, target: Target) -> Callable[[int, int], None]:
    """The routine of products by itself, compiled, on tiles of as many rows as a call has."""
    name = f"configured_{bf16_routine_name(width, target)}"
    code = object_code(_Configured(name, width, target).emit(), target)
    return load(name, code, bf16_routine(width, target))


def _is_right(run: Callable[[int, int], None], rows: int, lengths: Sequence[int], target: Target) -> bool:
    draw, lanes = np.random.default_rng(rows), target.lanes(WORD)
    biases = draw.integers(-99, 99, (_PANELS, _WIDTH, lanes)).astype(np.float32)
    room = np.full((_PANELS, rows, _WIDTH, lanes), np.nan, np.float32)
    wanted = np.repeat(biases[:, None], rows, axis=1)
    words = {"rows": rows, "stride": rows, "panels": _PANELS, "last": -1, "of last": 0}
    words |= {"room": room.ctypes.data, "biases": biases.ctypes.data, "terms": len(lengths)}
    table, held = [words[name] for name in CALL], []
    for length in lengths:
        operand = draw.integers(-9, 9, (rows, length + NUMBERS))
        weights = draw.integers(-9, 9, (_PANELS, length // 2, _WIDTH, lanes, 2))
        by_k = weights.transpose(0, 1, 4, 2, 3).reshape(_PANELS, length, _WIDTH, lanes)
        wanted += np.einsum("rk,pkvl->prvl", operand[:, :length], by_k).astype(np.float32)
        given, packed = _bfloat16(operand), _bfloat16(weights)
        held += [given, packed]
        words = {"operand": given.ctypes.data, "first": given.ctypes.data, "limit": rows, "run": 0}
        words |= {"row": length + NUMBERS, "length": length, "weights": packed.ctypes.data}
        table += [words[name] for name in TERM]
    call = np.array(table, np.int64)
    run(call.ctypes.data, 0)
    return bool(np.array_equal(room, wanted))


def _bfloat16(numbers: np.ndarray) -> np.ndarray:
    """Small whole numbers as the bits of bfloat16."""
    return (numbers.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


class _Configured(Code):
    """void name(int64 *call, int64 pair): tiles are configured, and the routine of products is called."""

    kinds = (POINTER, I64)

    def __init__(self, name: str, width: int, target: Target) -> None:
        super().__init__(name, WORD, target)
        self.width = width

    def emit(self) -> ir.Module:
        tiles = tiles_for(self)
        assert tiles is not None
        call, pair = self.function.args
        tiles.configure(tile_rows(self, self.load_whole(call, CALL.index("rows"))))
        self.b.call(self.declared(bf16_routine_name(self.width, self.target), Products.kinds), [call, pair])
        tiles.release()
        self.b.ret_void()
        return self.module
