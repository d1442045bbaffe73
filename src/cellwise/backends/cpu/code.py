"""Small words for writing LLVM code: addresses, vectors in memory, loops."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TypeAlias

from llvmlite import ir

from cellwise.backends.cpu.target import Target
from cellwise.backends.cpu.vectors import Lanes

I64, I8, POINTER = ir.IntType(64), ir.IntType(8), ir.PointerType()
_ALIGN = ir.IntType(32)  # of the number that says how masked vectors are aligned
Value: TypeAlias = ir.Value


@cache
def _whole(value: int) -> ir.Constant:
    return ir.Constant(I64, value)


def on_one_line(text: str) -> str:
    """A text that ends no comment: LLVM's ends with its line, and more than a line feed ends a line."""
    return "".join([each if each.isprintable() else "?" for each in text])


def symbol(name: str) -> str:
    """A name as LLVM and linkers take it: letters, figures and underscores of ASCII."""
    return "".join([each if each.isascii() and each.isalnum() else "_" for each in name])


class _Builder(ir.IRBuilder):
    """Comments hold names that somebody chose, and must not become code."""

    def comment(self, text: str) -> ir.Instruction:
        return super().comment(on_one_line(text))


class Code:
    """A function that returns nothing, `void name(pointer, pointer)` or what `kinds` says, and the words to fill it.

    It is in a module of its own, or in `module`, which may declare it already.
    """

    kinds: tuple[ir.Type, ...] = (POINTER, POINTER)

    def __init__(
        self, name: str, element_bytes: int, target: Target, module: ir.Module | None = None
    ) -> None:
        self.element_bytes = element_bytes
        self.target = target
        name = symbol(name)
        self.module = module or ir.Module(name=name)
        self.module.triple = target.triple
        self.function = self.declared(name, self.kinds)
        self.b = _Builder(self.function.append_basic_block("entry"))
        self.v = Lanes(self.b, element_bytes, target.lanes(element_bytes), target.fused)

    def declared(self, name: str, kinds: Sequence[ir.Type]) -> ir.Function:
        """A function of the module, which may have its code elsewhere."""
        known = self.module.globals.get(name)
        return known or ir.Function(self.module, ir.FunctionType(ir.VoidType(), kinds), name)

    def whole(self, value: int) -> Value:
        return _whole(value)

    def at(self, pointer: Value, index: Value, kind: ir.Type | None = None) -> Value:
        return self.b.gep(pointer, [index], inbounds=True, source_etype=kind or self.v.element)

    def beside(self, pointer: Value, index: Value) -> Value:
        """What `at` is, for an address that may lie outside of what the pointer points into."""
        return self.b.gep(pointer, [index], source_etype=self.v.element)

    def prefetch(self, pointer: Value, write: bool = False) -> None:
        """Ask for a line of memory, to be read soon, into the cache of the second level; no address is a fault.

        write: it is to be changed, too, and so asked for into the first.
        """
        whole = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [POINTER, whole, whole, whole])
        name = "llvm.prefetch.p0"
        function = self.module.globals.get(name) or ir.Function(self.module, kind, name)
        how = [ir.Constant(whole, value) for value in ((1, 3, 1) if write else (0, 2, 1))]
        self.b.call(function, [pointer, *how])

    def load(self, pointer: Value) -> Value:
        return self.b.load(pointer, typ=self.v.vector, align=self.element_bytes)

    def load_one(self, pointer: Value) -> Value:
        return self.b.load(pointer, typ=self.v.element, align=self.element_bytes)

    def load_whole(self, pointer: Value, index: Value | int, name: str = "") -> Value:
        """The index-th of an array of int64."""
        place = self.whole(index) if isinstance(index, int) else index
        return self.b.load(self.at(pointer, place, I64), typ=I64, name=symbol(name))

    def load_pointer(self, pointer: Value, index: int, name: str = "") -> Value:
        """The index-th of an array of pointers."""
        return self.b.load(self.at(pointer, self.whole(index), POINTER), typ=POINTER, name=symbol(name))

    def named(self, table: Value, names: Sequence[str], pointers: Collection[str]) -> dict[str, Value]:
        """The words of a table, each an int64 but for those that are pointers."""
        return {
            name: (self.load_pointer if name in pointers else self.load_whole)(table, place, name)
            for place, name in enumerate(names)
        }

    def store(self, value: Value, pointer: Value) -> None:
        self.b.store(value, pointer, align=self.element_bytes)

    def lanes_below(self, count: Value) -> Value:
        """A mask of the first lanes, as many as an int64 says."""
        b, v = self.b, self.v
        counts = v.splat(count if v.integer == I64 else b.trunc(count, v.integer))
        return b.icmp_signed("<", v.counted(), counts)

    def load_some(self, pointer: Value, mask: Value | None) -> Value:
        """A vector from memory; of lanes that a mask leaves out nothing is read, and they are 0."""
        if mask is None:
            return self.load(pointer)
        function = self._masked("load", self.v.vector, [POINTER, _ALIGN, mask.type, self.v.vector])
        return self.b.call(function, [pointer, _ALIGN(self.element_bytes), mask, self.v.number(0.0)])

    def store_some(self, value: Value, pointer: Value, mask: Value | None) -> None:
        """Put a vector into memory, but for the lanes that a mask leaves out."""
        if mask is None:
            self.store(value, pointer)
            return
        function = self._masked("store", ir.VoidType(), [self.v.vector, POINTER, _ALIGN, mask.type])
        self.b.call(function, [value, pointer, _ALIGN(self.element_bytes), mask])

    def _masked(self, what: str, result: ir.Type, kinds: list[ir.Type]) -> ir.Function:
        name = f"llvm.masked.{what}.{self.v.suffix}.p0"
        return self.module.globals.get(name) or ir.Function(self.module, ir.FunctionType(result, kinds), name)

    def changed_if(
        self,
        condition: Value,
        values: list[Value],
        change: Callable[[list[Value]], list[Value]],
        likely: bool = False,
    ) -> list[Value]:
        """What `change` makes of the values if the condition holds, which is seldom or `likely`; else the values."""
        b = self.b
        before = b.block
        with b.if_then(condition, likely=likely):
            changed = change(values)
            inside = b.block
        merged = []
        for value, other in zip(values, changed, strict=True):
            phi = b.phi(value.type)
            phi.add_incoming(value, before)
            phi.add_incoming(other, inside)
            merged.append(phi)
        return merged

    def store_one(self, value: Value, pointer: Value) -> None:
        """Put the first lane of a vector into memory."""
        self.b.store(self.v.first(value), pointer, align=self.element_bytes)

    @contextmanager
    def loop(
        self, name: str, count: Value, first: Value | None = None, step: int | Value = 1
    ) -> Iterator[Value]:
        """for index in range(first, count, step)"""
        with self.summing(name, count, [], first, step) as (index, _, _):
            yield index

    @contextmanager
    def summing(
        self, name: str, count: Value, sums: list[Value], first: Value | None = None, step: int | Value = 1
    ) -> Iterator[tuple[Value, list[Value], list[Value]]]:
        """A loop that carries values: yields the index, their values, and a list to fill with the next ones.

        After the loop, `sums` holds the last values.
        """
        b = self.b
        start = b.block
        head, body = b.append_basic_block(f"{name}.head"), b.append_basic_block(name)
        after = b.append_basic_block(f"{name}.after")
        b.branch(head)
        b.position_at_end(head)
        index = b.phi(I64, name)
        index.add_incoming(first or self.whole(0), start)
        running = [b.phi(each.type) for each in sums]
        for phi, each in zip(running, sums, strict=True):
            phi.add_incoming(each, start)
        b.cbranch(b.icmp_signed("<", index, count), body, after)
        b.position_at_end(body)
        following: list[Value] = []
        yield index, running, following
        index.add_incoming(b.add(index, self.whole(step) if isinstance(step, int) else step), b.block)
        for phi, each in zip(running, following, strict=True):
            phi.add_incoming(each, b.block)
        b.branch(head)
        b.position_at_end(after)
        sums[:] = running
