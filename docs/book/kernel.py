"""What *How it works* shows of a kernel: its program in words, and its busy loops, found by what they do."""

from __future__ import annotations

import re
from dataclasses import astuple
from typing import Any

from llvmlite import ir

from cellwise.backends.cpu import compile as compiling
from cellwise.backends.cpu.target import Target, host
from cellwise.graph import Node
from cellwise.plan.program import Program, Ref, Segment

__all__ = ["assembly", "blocks", "busiest", "is_product", "program_text", "simplest"]

# One multiply and add on a vector: as LLVM calls it, on x86, on ARM.
_PRODUCT = re.compile(r"llvm\.fma\.|\bv?fn?madd\w*|\bfmla\b|\bvfmadd\w+")


def is_product(line: str) -> bool:
    """Whether a line of LLVM or of assembly multiplies and adds vectors."""
    return bool(_PRODUCT.search(line)) and "declare" not in line


def program_text(program: Program) -> str:
    """The stages of a step in words."""
    lines = [f"{program.name}: for each step of time"]
    for number, stage in enumerate(program.stages, 1):
        lines.append(f"  stage {number}")
        for segment in stage.segments:
            lines.append(f"    add   {_product(segment)}")
        names = {node: f"sum {place}" for place, node in enumerate(stage.accumulators)}
        for node in stage.nodes:
            if node not in names:
                names[node] = f"v{sum(name.startswith('v') for name in names.values())}"
                lines.append(f"    {names[node]:<5} = {_operation(node, names, program)}")
        lines += [f"    write {names.get(node, '?')} -> {_place(ref)}" for node, ref in stage.writes]
    return "\n".join(lines)


def _product(segment: Segment) -> str:
    gates, sums = ", ".join(segment.weight.gates), ", ".join(map(str, segment.accumulators))
    turned = " transposed" if segment.weight.transposed else ""
    return f"{segment.weight.stem}[{gates}]{turned} × {_place(segment.operand)} to sum {sums}"


def _operation(node: Node, names: dict[Node, str], program: Program) -> str:
    parts = [names.get(each) or _leaf(each, program) for each in node.inputs]
    return f"{node.op.name}({', '.join(parts)})"


def _leaf(node: Node, program: Program) -> str:
    if node in program.reads:
        return _place(program.reads[node])
    return str(node.attribute) if node.attribute is not None else node.op.name


def _place(ref: Ref) -> str:
    return ref.array.name + (f"[{ref.column}]" if ref.array.columns > 1 else "")


class _Readable(Target):
    """A machine whose compiler writes assembly where it would write an object file."""

    def machine(self) -> Any:
        made = super().machine()
        made.emit_object = made.emit_assembly
        return made


def assembly(module: ir.Module) -> str:
    """The machine code of a module as text, out of the very passes that every kernel goes through."""
    return str(compiling._compiled(str(module), _Readable(*astuple(host()))))


def blocks(text: str) -> list[str]:
    """The basic blocks of LLVM or assembly text: what lies between two labels."""
    return [each.strip("\n") for each in re.split(r"\n(?=[\w.\"$-]+:)", text)]


def _loops(text: str) -> list[str]:
    found = [each for each in blocks(text) if any(map(is_product, each.splitlines()))]
    if not found:
        raise ValueError("no block of this code multiplies and adds vectors")
    return found


def _products(block: str) -> int:
    return sum(map(is_product, block.splitlines()))


def busiest(text: str) -> str:
    """The block with the most products; of several such, the shortest: a loop over one long sum."""
    most = max(_products(each) for each in _loops(text))
    return min((each for each in _loops(text) if _products(each) == most), key=len)


def simplest(text: str) -> str:
    """The first block with products: the loop for a single row."""
    return _loops(text)[0]
