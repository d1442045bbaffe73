"""Several compiled functions one after the other, in one call from Python.

A call through ctypes costs about half a microsecond, most of it for its arguments. A chain has its list at a fixed
place, and its only argument is made once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

from llvmlite import ir

from cellwise.backends.cpu.code import I64, Code
from cellwise.backends.cpu.compile import load, object_code
from cellwise.backends.cpu.target import Target, host
from cellwise.backends.cpu.team import Share

# Without the types of arguments there is nothing to convert. The one keeps the interpreter lock: to give it away and
# take it back costs as much as the call, and where threads wait for it, far more.
_RELEASES, _KEEPS = ctypes.CFUNCTYPE(None), ctypes.PYFUNCTYPE(None)
WORDS = 3  # of a link: a function, and its two arguments


def emit_chain(target: Target) -> ir.Module:
    """void chain(int64 *links): call links[0](links[1], links[2]) and so on, until a function is 0."""
    code = Code("chain", 8, target)
    b, whole = code.b, code.whole
    links, _ = code.function.args
    start, body, end = b.block, b.append_basic_block("link"), b.append_basic_block("end")
    first = code.load_whole(links, 0)
    b.cbranch(b.icmp_signed("!=", first, whole(0)), body, end)
    b.position_at_end(body)
    place, function = b.phi(I64, "place"), b.phi(I64, "function")
    arguments = [code.load_whole(links, b.add(place, whole(i))) for i in (1, 2)]
    b.call(b.inttoptr(function, ir.PointerType(ir.FunctionType(ir.VoidType(), [I64, I64]))), arguments)
    after = b.add(place, whole(WORDS))
    following = code.load_whole(links, after)
    b.cbranch(b.icmp_signed("!=", following, whole(0)), body, end)
    for phi, before, value in ((place, whole(0), after), (function, first, following)):
        phi.add_incoming(before, start)
        phi.add_incoming(value, body)
    b.position_at_end(end)
    b.ret_void()
    return code.module


class Chain:
    """Compiled functions and their arguments: `chain.run()` calls them in turn.

    Args:
        links: functions that `load` returned, each with two addresses.
        keeps_lock: the interpreter lock is kept, for what takes microseconds.
    """

    def __init__(self, links: Sequence[tuple[Any, int, int]], keeps_lock: bool = False) -> None:
        words = [word for function, *given in links for word in (function.address, *given)]
        self.links = (ctypes.c_int64 * (len(words) + 1))(*words, 0)
        self._held = [function for function, *_ in links]
        self.run: Callable[[], None] = partial(_chain(keeps_lock), ctypes.byref(self.links))

    @property
    def share(self) -> Share:
        """All of them as one share of work; of use as long as the chain is held."""
        return Share(_loaded(), ctypes.addressof(self.links), 0)


@cache
def _chain(keeps_lock: bool) -> Any:
    loaded = _loaded()
    function = (_KEEPS if keeps_lock else _RELEASES)(loaded.address)
    function.loaded = loaded  # type: ignore[attr-defined]  # keeps the code in memory
    return function


@cache
def _loaded() -> Any:
    return load("chain", object_code(emit_chain(host()), host()))
