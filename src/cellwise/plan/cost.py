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
- A value of M units counts M, as a cell says it: this is what is needed. Kernels compute all values of such a cell with
  rows of the widest (`computed_cost`).
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
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Any

from cellwise.graph import Node, Shape, StepGraph
from cellwise.graph.expr import postorder
from cellwise.graph.forms import FORMS, LOW_RANK, apart_stem, stems_of
from cellwise.graph.heads import heads_of
from cellwise.graph.ops import INPUT, PROJECT, SCALAR, STATE, VECTOR, Kind
from cellwise.graph.widths import row_width
from cellwise.passes import Derivative, differentiate, padded
from cellwise.passes.differentiate import PULLBACK
from cellwise.plan.backward import RECOMPUTED, backward_plan
from cellwise.plan.depth import Depth, backward_step, forward_step
from cellwise.plan.layout import ParameterSpec, parameter_layout
from cellwise.plan.polynomial import Polynomial, b, d, h
from cellwise.plan.quantities import ROWS, ZERO, Memory, Operations, Traffic
from cellwise.plan.unit_counts import UnitCounts


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
    below = cell.units.outputs(graph)[0]
    stack = [_Layer(cell, cell.width if number == 0 else below) for number in range(layers)]
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


def computed_cost(graph: StepGraph, hidden_size: int, layers: int = 1, bias: bool = True) -> tuple[Cost, int]:
    """What kernels compute for a cell of several widths at some H: the cost in rows of one width, and that width, which
    is the h of its formulas. (An input of a layer above has as many numbers as a row.)
    """
    return cost_of(padded(graph, hidden_size), layers, bias), row_width(graph, hidden_size)


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
        self.units = units = UnitCounts(graph, (*roots, *self.saved))
        self.states = _sum(b * units.state(state) for state in graph.states)
        # One number a row of each input beside x; masks are drawn for each layer.
        self.beside = (len(graph.asked_inputs) - len(graph.input_parts)) * ROWS
        self.width = len(graph.input_parts) * h or d
        self.at_parts = len(derivative.beside.keys() & graph.part_nodes) * ROWS * h
        self.masks = _sum(
            (b if draw.per_sequence else ROWS) * units.draw(draw.name) for draw in graph.asked_draws
        )
        self.tape = _sum(ROWS * units.of(node) for node in backward.tape.columns)
        self.tape += _sum(ROWS * units.state(state) for state in backward.histories)
        self.tape += len(backward.tape.row_columns) * ROWS
        # The outputs are also the states before all steps but the first, where they are that state.
        first = [n for n in self.saved if n.op is STATE and n.attribute not in backward.histories]
        self.outputs = ROWS * _sum(units.outputs(graph))
        written = {graph.output, *graph.others}.difference(graph.of(STATE))
        if graph.others:
            self.outputs_read = _sum(ROWS * units.of(node) for node in written & self.saved)
        else:
            self.outputs_read = self.outputs if first or backward.reads_output else ZERO
        self.keeps_output = backward.reads_output or graph.output_is_history
        at = {
            g: leaf
            for each in (*at_biases, derivative.parameters, derivative.beside)
            for leaf, g in each.items()
        }
        self.lies = {g: units.gradient(leaf, g) for g, leaf in at.items()}
        self.gates = _sum(ROWS * self.lies[gradient] for gradient in self.at_gates)
        self.again = ZERO
        if any(array.name == RECOMPUTED for array in backward.program.buffers):
            lie = {*graph.of(STATE), graph.output, *graph.others}
            operands = dict.fromkeys(node.inputs[0] for node in graph.of(PROJECT))
            self.again = _sum(ROWS * units.of(node) for node in operands if node not in lie)

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
        weights = _sum(2 * ROWS * self.units.weight(str(node.attribute)) for node in self.derivative.products)
        # What comes of a part of the input is added to what comes of the product with it, if there is one.
        beside = {*self.derivative.beside} - (
            frozenset() if self.graph.input_gates else self.graph.part_nodes
        )
        summed = [*self.at_parameters, *(self.derivative.beside[node] for node in beside)]
        summed += self.at_biases if self.bias else []
        sums = _sum(ROWS * self.lies[gradient] for gradient in summed)
        return total + Operations(products=weights, pointwise=sums)

    def _operation(self, node: Node, in_rows: bool) -> Operations:
        units = self.units.of(node)
        if node.op in (INPUT, PROJECT):
            product = 2 * ROWS * self.units.weight(str(node.attribute)) if node.op is PROJECT else ZERO
            return Operations(product, ROWS * units if self.bias and not node.linear else ZERO)
        if node.op is PULLBACK:
            gates = str(node.attribute).split()
            return Operations(products=_sum(2 * ROWS * self.units.weight(gate) for gate in gates))
        if not node.inputs or node.op.free:
            return Operations()
        if node.shape is Shape.ROWS:
            count = ROWS * units if node.op.kind is Kind.REDUCTION else ROWS
            return Operations(pointwise=count, functions=count if node.op.kind is Kind.FUNCTION else ZERO)
        # What is made of parameters alone is made once, not at each step.
        count = ROWS * units if in_rows else units if node.shape is Shape.UNITS else ZERO + 1
        return Operations(pointwise=count, functions=count if node.op.kind is Kind.FUNCTION else ZERO)


class _Layer:
    """One layer of the stack, whose input has `width` numbers."""

    def __init__(self, cell: _Cell, width: Polynomial) -> None:
        self.cell = cell
        self.width = width
        self.specs = cell.layout(width)
        self.parameters = _sum(_size(spec) for spec in self.specs)
        forms = cell.graph.forms
        sizes = {
            (kind, gate): (cell.units.rows(gate), width if kind == "ih" else cell.units.columns(gate))
            for kind, gate in forms
        }
        self.made = {
            kind: _sum(rows * columns // parts for (of, _), (rows, columns) in sizes.items() if of == kind)
            for kind, parts in (("ih", 1), ("hh", heads_of(cell.graph)))
        }
        # What it takes to make them: products and others, and both for the gradients.
        counts = [FORMS[form.kind].operations(form.number, *sizes[place]) for place, form in forms.items()]
        products, others, *backward = (
            (_sum(each) for each in zip(*counts, strict=True)) if counts else (ZERO,) * 4
        )
        self.making, self.making_backward = Operations(products, others), Operations(*backward)

    @property
    def forward(self) -> Operations:
        inputs = _sum(self.cell.units.of(node) for node in self.cell.graph.of(INPUT))
        product = Operations(products=inputs * 2 * ROWS * self.width)
        return self.cell.forward() + product + self.making

    @property
    def backward(self) -> Operations:
        # One product for the weight's gradient, one for the input's; and those of the step where it is computed again.
        units = self.cell.units
        again = _sum(units.of(node) for node in self.cell.made if node.op is INPUT)
        inputs = 2 * _sum(units.of(node) for node in self.cell.derivative.inputs) + again
        product = Operations(products=inputs * 2 * ROWS * self.width)
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
        needed |= (
            {"weight_hh", *map(apart_stem, cell.graph.apart("hh"))} if ops & {PULLBACK, PROJECT} else set()
        )
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
