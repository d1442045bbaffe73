"""What a cell costs, counted from its equations, their derivative and its plan: exact, and symbolic in the sizes.

How it is counted:

- An operation of a matrix product is a multiplication or an addition, so a multiply-add counts two. Everything else
  is pointwise and counts one for each number that it makes, whether it is an addition or a tanh; the elementary
  functions, which cost more than an addition, are also given apart. A bias is a pointwise addition; so is each number
  that is summed into the gradient of a bias or of a cell's own parameter, and each that a reduction takes in.
- Backward is the gradient at everything: the weights, the initial states and the input. `recomputed` are those of its
  pointwise operations that make a value of the forward pass again instead of keeping it.
- Parts of the input that equations take as they are have been read with it; only the gradients at them are written
  apart, and added to those of a product with the input where there is one.
- A weight that is made of others is made once in a pass, not at each step, and the products of steps are those with the
  whole of it: this is what kernels do. It is written, read and held besides what it is made of. But where the units of
  a cell fall into heads (`cellwise.graph.heads`), products are those of the blocks: what is needed, and what a CPU
  computes but for narrow heads and small calls (`cellwise.backends.cpu.heads`), which take a whole matrix.
- A value beside x is counted as one number a row, to whose gradient all units add. Random numbers are one for each row
  and unit, written once by what draws them; what the drawing computes is not counted.
- Bytes read and written are those that must move: each array once in each pass that uses it. The weights are
  counted once a pass and the states stay near the processor from step to step.
- Memory is that of the numbers, without the scratch of a backend; an optimizer keeps its own. A training step is looked
  at when it is highest, at the beginning of the backward pass of the top layer. The formulas are without padding;
  `Memory.at` knows that kernels pad rows of h numbers to whole vectors, and hold some arrays once more for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import reduce
from operator import add
from typing import Any

from cellwise.graph import Node, Shape, StepGraph
from cellwise.graph.expr import postorder
from cellwise.graph.forms import FORMS, LOW_RANK, stems_of
from cellwise.graph.heads import heads_of
from cellwise.graph.ops import INPUT, PROJECT, SCALAR, STATE, VECTOR, Kind
from cellwise.passes import Derivative, differentiate
from cellwise.passes.differentiate import PULLBACK
from cellwise.plan.backward import RECOMPUTED, backward_plan
from cellwise.plan.depth import Depth, backward_step, forward_step
from cellwise.plan.layout import ParameterSpec, parameter_layout
from cellwise.plan.polynomial import Polynomial, b, d, h, t

ZERO = Polynomial()
ROWS = b * t  # steps of all sequences


class _Sum:
    """Adds field by field."""

    def __add__(self: Any, other: Any) -> Any:
        pairs = ((getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return type(self)(*(own + other for own, other in pairs))


@dataclass(frozen=True)
class Operations(_Sum):
    """`functions` and `recomputed` are parts of `pointwise`."""

    products: Polynomial = ZERO
    pointwise: Polynomial = ZERO
    functions: Polynomial = ZERO
    recomputed: Polynomial = ZERO

    @property
    def total(self) -> Polynomial:
        return self.products + self.pointwise


@dataclass(frozen=True)
class Traffic(_Sum):
    """Numbers read and written; times the bytes of a number they are bytes."""

    read: Polynomial = ZERO
    written: Polynomial = ZERO

    @property
    def total(self) -> Polynomial:
        return self.read + self.written


@dataclass(frozen=True)
class Memory:
    """Numbers that are held at once, by what they are.

    `in_vectors` are the parts that kernels hold in whole vectors; `copies` those that they hold besides, where rows of
    h numbers are no whole vectors.
    """

    parts: tuple[tuple[str, Polynomial], ...]
    in_vectors: frozenset[str] = frozenset()
    copies: tuple[tuple[str, Polynomial], ...] = ()

    def at(self, lanes: int = 1, **sizes: int) -> int:
        """The numbers held at these sizes, each by its letter, by kernels whose vectors have so many lanes."""
        return sum(self.part(name, lanes, **sizes) for name, _ in (*self.parts, *self.copies))

    def part(self, name: str, lanes: int = 1, **sizes: int) -> int:
        """Those of one part, or of one of the copies, which are none where nothing is padded."""
        padded = sizes | {"h": -(-sizes["h"] // lanes) * lanes}
        copy = dict(self.copies).get(name)
        if copy is not None:
            return 0 if padded == sizes else copy.at(**padded)
        return self[name].at(**(padded if name in self.in_vectors else sizes))

    @property
    def total(self) -> Polynomial:
        return reduce(add, (size for _, size in self.parts), ZERO)

    def __getitem__(self, name: str) -> Polynomial:
        return dict(self.parts)[name]


@dataclass(frozen=True)
class Cost:
    """The cost of a stack of layers of a cell, in one direction. Sizes in numbers, not bytes.

    `forward` is the same with and without training; `inference_traffic` and `forward_traffic` differ by the tape.
    `recurrent_weights` are those of the matrices between state and gates.
    """

    parameters: Polynomial
    recurrent_weights: Polynomial
    forward: Operations
    backward: Operations
    inference_traffic: Traffic
    forward_traffic: Traffic
    backward_traffic: Traffic
    inference_memory: Memory
    training_memory: Memory
    forward_depth: Depth
    backward_depth: Depth


def cost_of(graph: StepGraph, layers: int = 1, bias: bool = True, recompute: bool = False) -> Cost:
    """The cost of `layers` layers of a cell, each over the outputs of the one below, in b, t, h and d.

    With `recompute` the backward pass computes each step again instead of reading what the forward pass kept.

    >>> from cellwise import cells
    >>> cost = cost_of(cells.get("lstm").graph)
    >>> cost.parameters, cost.forward.products, cost.forward_depth.formula
    (4h(d + h + 2), 8bth(d + h), 7t)
    """
    cell = _Cell(graph, bias, recompute)
    stack = [_Layer(cell, cell.width if number == 0 else h) for number in range(layers)]
    parameters = _sum(layer.parameters for layer in stack)
    states = layers * cell.states
    made = _sum(size for layer in stack for size in layer.made.values())
    once = (("weights", parameters), *((("weights made of others", made),) if made else ()))
    once += (("input", ROWS * cell.width),)
    top = stack[-1]
    training = (
        *once,
        ("outputs", layers * cell.outputs),
        ("tape", layers * cell.tape),
        ("states", states),
        *((("beside x", cell.beside + layers * cell.masks),) if cell.beside or cell.masks else ()),
        ("weights' gradients", parameters),
        ("gates' gradients", cell.gates),
        ("operands made again", cell.again),
        ("gradients at output, input and states", cell.outputs + ROWS * top.width + cell.states),
    )
    in_vectors = frozenset({"tape", "gates' gradients", "operands made again"})
    copies = (
        ("outputs in whole vectors", layers * cell.outputs),
        ("gradient at output in whole vectors", cell.outputs),
    )
    # The outputs of a layer are the input of the next; those below are no longer needed.
    inference = (
        *once,
        ("outputs", min(layers, 2) * cell.outputs),
        ("states", states),
        *((("beside x", cell.beside + cell.masks),) if cell.beside or cell.masks else ()),
    )
    return Cost(
        parameters,
        layers * _sum(_size(spec) for spec in cell.layout(d) if spec.stem.startswith("weight_hh")),
        forward=reduce(add, (layer.forward for layer in stack)),
        backward=reduce(add, (layer.backward for layer in stack)),
        inference_traffic=reduce(add, (layer.traffic_forward(tape=False) for layer in stack)),
        forward_traffic=reduce(add, (layer.traffic_forward(tape=True) for layer in stack)),
        backward_traffic=reduce(add, (layer.traffic_backward for layer in stack)),
        inference_memory=Memory(inference, copies=(("outputs in whole vectors", cell.outputs),)),
        training_memory=Memory(training, in_vectors, copies if cell.keeps_output else copies[1:]),
        forward_depth=Depth(forward_step(graph), layers),
        backward_depth=Depth(backward_step(cell.derivative, cell.backward_nodes, cell.saved), layers),
    )


class _Cell:
    """What is the same for every layer: the equations, their derivative, and what is kept between the two."""

    def __init__(self, graph: StepGraph, bias: bool, recompute: bool) -> None:
        self.graph = graph
        self.bias = bias
        self.derivative: Derivative = differentiate(graph)
        backward = backward_plan(graph, recompute=recompute)
        self.saved = frozenset(backward.saved)
        derivative = self.derivative
        self.at_gates = dict.fromkeys([*derivative.inputs.values(), *derivative.products.values()])
        at_biases = (derivative.inputs, derivative.products)
        self.at_biases = {g for each in at_biases for node, g in each.items() if not node.linear}
        self.at_parameters = tuple(derivative.parameters.values())
        roots = [*self.at_gates, *derivative.states.values(), *self.at_parameters]
        roots += derivative.beside.values()
        # Down to what is saved, which is listed too where the derivative reads it.
        made = postorder(roots, self.saved)
        self.backward_nodes = (*self.saved, *made)
        self.made = tuple(made)
        # What a step multiplies by, of one gate.
        self.weight = h * h // heads_of(graph)
        self.states = len(self.graph.states) * b * h
        # One number a row of each input beside x; masks are drawn for each layer.
        self.beside = (len(graph.asked_inputs) - len(graph.input_parts)) * ROWS
        self.width = len(graph.input_parts) * h or d
        self.at_parts = len(derivative.beside.keys() & graph.part_nodes) * ROWS * h
        self.masks = _sum((b if draw.per_sequence else ROWS) * h for draw in graph.asked_draws)
        self.tape = (len(backward.tape.columns) + len(backward.histories)) * ROWS * h
        self.tape += len(backward.tape.row_columns) * ROWS
        # The outputs are also the states before all steps but the first, where they are that state.
        first = [n for n in self.saved if n.op is STATE and n.attribute not in backward.histories]
        self.outputs = (1 + len(graph.others)) * ROWS * h
        written = {graph.output, *graph.others}.difference(graph.of(STATE))
        read = len(written & self.saved) if graph.others else bool(first or backward.reads_output)
        self.outputs_read = read * ROWS * h
        self.keeps_output = backward.reads_output or graph.output_is_history
        self.gates = len(self.at_gates) * ROWS * h
        again = [array.columns for array in backward.program.buffers if array.name == RECOMPUTED]
        self.again = sum(again) * ROWS * h

    def layout(self, width: Polynomial) -> tuple[ParameterSpec, ...]:
        """The layer's own list of parameters, asked with letters in place of numbers."""
        input_size: Any = width
        hidden_size: Any = h
        return parameter_layout(self.graph, input_size, hidden_size, self.bias)

    def forward(self) -> Operations:
        """Without the product of the input."""
        return _sum_operations(self._operation(node, node.shape is Shape.BATCH) for node in self.graph.nodes)

    def backward(self) -> Operations:
        """Without the products with the input."""
        step = set(self.graph.nodes)
        by_row = {node: node.shape is not Shape.ROWS for node in self.saved}
        total = Operations()
        for node in self.made:
            # What is made of parameters alone is kept row by row, and so is what is made with it.
            in_rows = node.shape is Shape.BATCH or any(by_row[i] for i in node.inputs)
            by_row[node] = in_rows and node.shape is not Shape.ROWS
            made = self._operation(node, by_row[node])
            again = made.pointwise if node in step else ZERO
            total += Operations(made.products, made.pointwise, made.functions, again)
        weights = len(self.derivative.products) * 2 * ROWS * self.weight
        # What comes of a part of the input is added to what comes of the product with it, if there is one.
        beside = {*self.derivative.beside} - (
            frozenset() if self.graph.input_gates else self.graph.part_nodes
        )
        sums = len(self.at_parameters) + len(beside)
        sums += len(self.at_biases) if self.bias else 0
        return total + Operations(products=weights, pointwise=sums * ROWS * h)

    def _operation(self, node: Node, in_rows: bool) -> Operations:
        if node.op in (INPUT, PROJECT):
            product = 2 * ROWS * self.weight if node.op is PROJECT else ZERO
            return Operations(product, ROWS * h if self.bias and not node.linear else ZERO)
        if node.op is PULLBACK:
            return Operations(products=len(node.inputs) * 2 * ROWS * self.weight)
        if not node.inputs or node.op.free:
            return Operations()
        if node.shape is Shape.ROWS:
            count = ROWS * h if node.op.kind is Kind.REDUCTION else ROWS
            return Operations(pointwise=count, functions=count if node.op.kind is Kind.FUNCTION else ZERO)
        # What is made of parameters alone is made once, not at each step.
        count = ROWS * h if in_rows else h if node.shape is Shape.UNITS else ZERO + 1
        return Operations(pointwise=count, functions=count if node.op.kind is Kind.FUNCTION else ZERO)


class _Layer:
    """One layer of the stack, whose input has `width` numbers."""

    def __init__(self, cell: _Cell, width: Polynomial) -> None:
        self.cell = cell
        self.width = width
        self.specs = cell.layout(width)
        self.parameters = _sum(_size(spec) for spec in self.specs)
        forms = cell.graph.forms
        self.made = {
            kind: sum(of == kind for of, _ in forms) * size
            for kind, size in (("ih", h * width), ("hh", cell.weight))
        }
        # What it takes to make them: products and others, and both for the gradients.
        counts = [
            FORMS[form.kind].operations(form.number, h, width if kind == "ih" else h)
            for (kind, _), form in forms.items()
        ]
        products, others, *backward = (
            (_sum(each) for each in zip(*counts, strict=True)) if counts else (ZERO,) * 4
        )
        self.making, self.making_backward = Operations(products, others), Operations(*backward)

    @property
    def forward(self) -> Operations:
        inputs = len(self.cell.graph.of(INPUT))
        product = Operations(products=inputs * 2 * ROWS * h * self.width)
        return self.cell.forward() + product + self.making

    @property
    def backward(self) -> Operations:
        # One product for the weight's gradient, one for the input's; and those of the step where it is computed again.
        again = sum(node.op is INPUT for node in self.cell.made)
        inputs = 2 * len(self.cell.derivative.inputs) + again
        product = Operations(products=inputs * 2 * ROWS * h * self.width)
        return self.cell.backward() + product + self.making_backward

    def traffic_forward(self, tape: bool) -> Traffic:
        cell, made = self.cell, _sum(self.made.values())
        return Traffic(
            read=self.parameters + made + ROWS * self.width + cell.states + cell.beside + cell.masks,
            written=cell.outputs + cell.states + (cell.tape if tape else ZERO) + cell.masks + made,
        )

    @property
    def traffic_backward(self) -> Traffic:
        cell = self.cell
        needed = {str(node.attribute) for node in cell.made if node.op in (VECTOR, SCALAR)}
        ops = {node.op for node in cell.made}
        needed |= {"weight_ih"} if cell.derivative.inputs else set()
        needed |= {"weight_hh"} if ops & {PULLBACK, PROJECT} else set()
        needed |= {stem for stem, op in (("bias_ih", INPUT), ("bias_hh", PROJECT)) if op in ops}
        weights = _sum(_size(spec) for spec in self.specs if spec.stem in needed)
        weights += _sum(size for kind, size in self.made.items() if f"weight_{kind}" in needed)
        # What a weight is made of is read for some gradients; that at the weight is written and read.
        forms = self.cell.graph.forms.items()
        factors = [stem for place, form in forms if form.kind == LOW_RANK for stem in stems_of(*place, form)]
        weights += _sum(_size(spec) for spec in self.specs if spec.stem in factors)
        made = _sum(self.made.values())
        rows = ROWS * self.width
        # Written by the loop and read by the products after it.
        by_loop = cell.gates + cell.again
        beside = cell.beside + cell.masks
        return Traffic(
            read=weights
            + made
            + rows
            + cell.outputs
            + cell.tape
            + cell.outputs_read
            + by_loop
            + cell.states
            + beside,
            written=self.parameters + made + rows + by_loop + cell.states + cell.beside + cell.at_parts,
        )


def _size(spec: ParameterSpec) -> Polynomial:
    count = ZERO + 1
    for side in spec.shape:
        count = count * side
    return count


def _sum(sizes: Iterable[Polynomial | int]) -> Polynomial:
    return reduce(add, sizes, ZERO)


def _sum_operations(each: Iterable[Operations]) -> Operations:
    return reduce(add, each, Operations())
