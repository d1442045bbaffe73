"""A program as text: its buffers, and for each stage the products, the equations and what is written where.

Values are called as in the equations of the cell. In a backward program δv is the derivative of the loss with respect
to v, Δ what arrives from outside the step; e1, e2, ... are expressions that are used more than once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache

from cellwise.graph import Node, StepGraph
from cellwise.graph.ops import CONSTANT, OPS
from cellwise.graph.text import DEEPEST, TEXT, arriving_names, display_names, write
from cellwise.passes import differentiate
from cellwise.passes.differentiate import GRADIENT, OUTPUT, PULLBACK, arriving_outputs
from cellwise.plan.forward import OUTPUT_WEIGHT
from cellwise.plan.program import Buffer, MatmulTerm, Program, Slot, Stage, StorageClass, Width

__all__ = ["equation_of", "listing"]

_SHAPES = {
    StorageClass.PER_STEP: ("N",),
    StorageClass.BESIDE: ("N",),
    StorageClass.PER_SEQUENCE: ("B",),
    StorageClass.PER_CHUNK: ("S",),
    StorageClass.CARRY_IN: ("B",),
    StorageClass.CARRY_OUT: ("B",),
    StorageClass.AHEAD: ("A",),
    StorageClass.SCRATCH: ("B",),
    StorageClass.PER_UNIT: (),
    StorageClass.REDUCTION: (),
}
_LEGEND = "N the valid steps of all sequences, S those of a span, A those ahead, B batch, " + ", ".join(
    f"{width.value} {meaning}"
    for width, meaning in (
        (Width.INPUT, "input size"),
        (Width.HIDDEN, "hidden size"),
        (Width.PROJECTED, "projected size"),
    )
)


# Gradients are leaves without a shape, which is no reason to write a product with one as with a number.
_NOTATION = replace(TEXT, times_number=TEXT.times)


def equation_of(program: Program, node: Node, graph: StepGraph) -> str:
    """The equation of a value of `program`, the forward, training or backward program of `graph`.

    It is `name = expression` where the value has a name, else the expression; an accumulator's is all that is summed
    in it.

    >>> from cellwise import cells
    >>> from cellwise.plan.forward import forward_program
    >>> graph = cells.get("gru").graph
    >>> program = forward_program(graph, None)
    >>> (stage,) = program.stages
    >>> equation_of(program, stage.accumulators[0], graph)
    'W_ir x + b_ir + W_hr h + b_hr'
    >>> equation_of(program, stage.nodes[-1], graph)
    "h' = (1 − z) ⊙ n + z ⊙ h"
    """
    names = _names(program, graph)
    if node.op is PULLBACK:
        return _pullback(node, names)
    text = write(node, names, _NOTATION, top=True)[0]
    name = names.get(node)
    return text if name is None or name == text else f"{name} = {text}"


@lru_cache(maxsize=8)
def _names(program: Program, graph: StepGraph) -> Mapping[Node, str]:
    """What the values of a program are called."""
    names = display_names(graph)
    nodes = [
        node for stage in program.stages for node in (*stage.row_nodes, *stage.accumulators, *stage.nodes)
    ]
    gradients, outputs = [node for node in program.reads if node.op is GRADIENT], arriving_outputs(graph)
    if not gradients:
        return names
    for node in gradients:
        if node.attribute in outputs:
            name = arriving_names(graph)[outputs[str(node.attribute)]]
            names[node] = f"Δ{name}"
        else:
            names[node] = f"Δ{graph.states[0] if node.attribute not in graph.states else node.attribute}"
    for node in (*nodes, *program.reads):
        # All that arrives at an output that is a state; from here on it has one name.
        if (
            node.op is OPS["add"]
            and graph.output_is_state
            and {i.attribute for i in node.inputs} == {OUTPUT, graph.states[0]}
        ):
            names[node] = f"δ{graph.states[0]}'"
    for node, name in _named_gradients(graph):
        if node.op not in (GRADIENT, CONSTANT):
            names.setdefault(node, name)
    _name_helpers(
        names, nodes, {*names.values(), *graph.states, *graph.vectors, *graph.scalars, *graph.given}
    )
    return names


def _named_gradients(graph: StepGraph) -> Iterator[tuple[Node, str]]:
    derivative = differentiate(graph)
    seen = Counter[str]()
    for node, gradient in derivative.inputs.items():
        yield gradient, f"δx_{node.attribute}"
    count = Counter(str(node.attribute) for node in derivative.products)
    for node, gradient in derivative.products.items():
        gate = str(node.attribute)
        seen[gate] += 1
        yield gradient, f"δh_{gate}" + (str(seen[gate]) if count[gate] > 1 else "")
    for state, gradient in derivative.states.items():
        yield gradient, f"δ{state}"
    for node, gradient in (*derivative.parameters.items(), *derivative.beside.items()):
        yield gradient, f"δ{node.attribute}"


def _name_helpers(names: dict[Node, str], nodes: Iterable[Node], taken: set[str]) -> None:
    """Names for what is used more than once and is more than one op on named values, and for what is nested deep."""
    ordered = list(dict.fromkeys(nodes))
    depth: dict[Node, int] = {}
    uses = Counter(i for node in ordered for i in node.inputs)
    free = (name for i in range(1, len(ordered) + len(taken) + 1) if (name := f"e{i}") not in taken)
    for node in ordered:
        simple = all(i in names or not i.inputs for i in node.inputs)
        depth[node] = 1 + max([_depth(i, names, depth) for i in node.inputs], default=-1)
        if node not in names and node.op is PULLBACK:
            names[node] = f"({_pullback(node, names)})" if len(node.inputs) > 1 else _pullback(node, names)
        elif (
            node not in names
            and not node.is_mask
            and (depth[node] > DEEPEST or (uses[node] > 1 and not simple))
        ):
            names[node] = next(free)


def _depth(node: Node, names: Mapping[Node, str], depth: Mapping[Node, int]) -> int:
    """How deep the expression of a value is nested; one with a name is written as that."""
    if node in names:
        return 0
    if node.is_mask:  # computed where it is used, and so in no stage of its own
        return 1 + max([_depth(i, names, depth) for i in node.inputs])
    return depth.get(node, 0)


def _pullback(node: Node, names: Mapping[Node, str]) -> str:
    """Transposed weights times the gradients at gates."""
    if node.attribute == OUTPUT_WEIGHT:
        return f"W_hrᵀ ({write(node.inputs[0], names, _NOTATION)[0]})"
    parts = []
    for operand, gate in zip(node.inputs, str(node.attribute).split(), strict=True):
        text, binds = write(operand, names, _NOTATION)
        parts.append(f"W_h{gate}ᵀ {text if operand in names or not binds else TEXT.brackets(text)}")
    return " + ".join(parts)


# --- the whole program ----------------------------------------------------------------------------------------------


def listing(program: Program, graph: StepGraph) -> str:
    """A program of `graph`, legibly.

    >>> from cellwise import cells
    >>> from cellwise.plan.forward import forward_program
    >>> graph = cells.get("mingru").graph
    >>> print(listing(forward_program(graph, None), graph))  # doctest: +ELLIPSIS
    MinGRU_forward
    <BLANKLINE>
    buffers   (N the valid steps of all sequences, S those of a span, ...
      x         (N, D)  one row per column and step of each sequence
      ...
    """
    parts = [program.name, _buffers(program, graph)]
    for stage in program.before_loop:
        parts.append(
            "\n".join(("before the steps, for many of them at once", *_stage(program, stage, graph)))
        )
    for number, stage in enumerate(program.stages):
        parts.append("\n".join((f"stage {number}, at each step", *_stage(program, stage, graph))))
    return "\n\n".join(parts)


def _buffers(program: Program, graph: StepGraph) -> str:
    rows = []
    for buffer in program.buffers:
        columns = _columns(program, buffer, graph) if buffer.columns > 1 else ""
        rows.append((buffer.name, _shape(buffer), buffer.storage.value, columns))
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    lines = [f"buffers   ({_LEGEND})"]
    for name, shape, place, columns in rows:
        lines.append(f"  {name:<{widths[0]}}  {shape:<{widths[1]}}  {place}")
        if columns:
            lines.append(" " * (widths[0] + widths[1] + 6) + columns)
    return "\n".join(lines)


def _shape(buffer: Buffer) -> str:
    if buffer.storage is StorageClass.SCALAR:
        return "()"
    sizes = [
        *_SHAPES[buffer.storage],
        *([str(buffer.columns)] if buffer.columns > 1 else []),
        buffer.width.value,
    ]
    return f"({', '.join(sizes)})" if len(sizes) > 1 else f"({sizes[0]},)"


def _columns(program: Program, buffer: Buffer, graph: StepGraph) -> str:
    """What each column of an buffer holds."""
    held: dict[int, str] = {}
    slots = [
        (node, slot)
        for stage in program.stages
        for node, slot in (*stage.row_writes, *stage.reductions, *stage.writes)
    ]
    for node, slot in (*slots, *program.reads.items()):
        if slot.buffer == buffer:
            held.setdefault(slot.column, _short(program, node, graph))
    return "columns: " + "; ".join(held.get(column, "not used") for column in range(buffer.columns))


def _short(program: Program, node: Node, graph: StepGraph) -> str:
    """A value's name, or its expression if it has none."""
    return (
        write(node, _names(program, graph), _NOTATION)[0]
        if node.op is not PULLBACK
        else equation_of(program, node, graph)
    )


def _stage(program: Program, stage: Stage, graph: StepGraph) -> Iterator[str]:
    names = _names(program, graph)
    if stage.row_writes:
        yield "  numbers of each row"
        yield from _targets(program, stage.row_writes, graph)
    if stage.terms:
        yield "  products"
        yield from (f"    {_product(term)}" for term in stage.terms)
        yield "  sums"
        for number, node in enumerate(stage.accumulators):
            yield f"    [{number}]  {equation_of(program, node, graph)}"
    shown = [node for node in stage.nodes if node in names]
    if shown:
        yield "  equations"
        yield from (f"    {equation_of(program, node, graph)}" for node in shown)
    if stage.reductions:
        yield "  adds up, unit after unit"
        yield from (f"    {_short(program, node, graph)}" for node, _ in stage.reductions)
    if stage.writes or not (stage.row_writes or stage.reductions):
        yield "  writes"
    yield from _targets(program, stage.writes, graph)


def _targets(program: Program, writes: Iterable[tuple[Node, Slot]], graph: StepGraph) -> Iterator[str]:
    """What is written, and where."""
    targets: dict[Node, list[str]] = {}
    for node, slot in writes:
        adds = "added to " if slot.buffer.storage is StorageClass.REDUCTION else ""
        column = f"[{slot.column}]" if slot.buffer.columns > 1 else ""
        targets.setdefault(node, []).append(f"{adds}{slot.buffer.name}{column}")
    for node, places in targets.items():
        yield f"    {_short(program, node, graph)} → {', '.join(places)}"


def _product(term: MatmulTerm) -> str:
    buffer, block = term.operand.buffer, term.weight
    operand = buffer.name + (f"[{term.operand.column}]" if buffer.columns > 1 else "")
    gates = ", ".join(gate for gate in block.gates if gate)
    weight = f"{block.stem}{'[' + gates + ']' if gates else ''}{' transposed' if block.transposed else ''}"
    sums = ", ".join(f"[{number}]" for number in term.accumulators)
    return f"{operand} × {weight} → {sums}"
