"""Costs against what really runs: parameters of layers, operations that torch is seen to do, tensors that are kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from costly import EVERY, Parts, cost
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import cellwise
from cellwise import Cell, Scalar, Vector, cells, exp, mean, stop_gradient, tanh, where
from cellwise.backends.cpu.compiler import LlvmCompiler
from cellwise.graph import Node, Shape, StepGraph, ops
from cellwise.graph.expr import postorder
from cellwise.graph.forms import FORMS, made
from cellwise.graph.heads import heads_of
from cellwise.graph.ops import (
    BESIDE,
    CONSTANT,
    INPUT,
    POINTWISE,
    PROJECT,
    REDUCTIONS,
    SCALAR,
    STATE,
    VECTOR,
    Kind,
    constant_tensor,
)
from cellwise.graph.units import HIDDEN
from cellwise.graph.widths import widths_of
from cellwise.passes import Derivative, differentiate
from cellwise.passes.differentiate import GRADIENT, PULLBACK, SHARE, arriving_outputs
from cellwise.plan.backward import backward_plan
from cellwise.plan.polynomial import b, d, h, t
from cellwise.testing.strategies import cells as drawn_cells

B, T, D, H = 3, 5, 7, 4
SIZES = {"b": B, "t": T, "d": D, "h": H}


# --- parameters -------------------------------------------------------------------------------------------------


def check_parameters(cell: Any, layers: int, bias: bool, sizes: tuple[int, int]) -> None:
    parts = len(cells.get(cell).graph.input_parts)
    sizes = (parts * sizes[1] or sizes[0], sizes[1])
    if parts > 1:  # the output of a layer is too narrow to be the next one's input
        layers = 1
    layer = cellwise.Recurrent(cell, *sizes, num_layers=layers, bias=bias)
    real = sum(parameter.numel() for parameter in layer.parameters())
    assert cost(cell, layers, bias).parameters.at(d=sizes[0], h=sizes[1]) == real


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layers", [1, 2, 3])
@pytest.mark.parametrize("cell", EVERY)
def test_parameters_are_those_of_the_layer(cell: Any, layers: int, bias: bool) -> None:
    for sizes in ((7, 5), (1, 1), (3, 17)):
        check_parameters(cell, layers, bias, sizes)


@given(cell=drawn_cells(), layers=st.integers(1, 3), bias=st.booleans())
def test_parameters_of_any_cell_are_those_of_the_layer(cell: Cell, layers: int, bias: bool) -> None:
    check_parameters(cell, layers, bias, (7, 5))


def test_the_textbook_figures() -> None:
    """Counted by hand from the equations; biases are two vectors per gate, as in torch.nn."""
    formulas = {name: cost(name) for name in ("rnn", "lstm", "gru")}
    assert [str(c.parameters) for c in formulas.values()] == [
        "h(d + h + 2)",
        "4h(d + h + 2)",
        "3h(d + h + 2)",
    ]
    assert [c.recurrent_weights for c in formulas.values()] == [h * h, 4 * h * h, 3 * h * h]
    one = h * (d + h)
    for gates, each in zip((1, 4, 3), formulas.values(), strict=True):
        assert each.forward.products == 2 * gates * b * t * one
        assert each.backward.products == 4 * gates * b * t * one, "two products backward for one forward"
    # RNN: two biases, a sum, a tanh. LSTM: 8 biases, 4 sums, 5 functions, f c + i g, o tanh(c).
    # GRU: 6 biases, 3 sums, 3 functions, r h.n, 1 - z, two products and a sum.
    assert [c.forward.pointwise for c in formulas.values()] == [n * b * t * h for n in (4, 21, 17)]
    assert [c.forward.functions for c in formulas.values()] == [n * b * t * h for n in (1, 5, 3)]
    # RNN backward: the sum of two gradients, g (1 - y y), and one sum for both biases.
    assert cost("rnn").backward.pointwise == 5 * b * t * h
    # LSTM backward: y and h', then o: g tanh(c), do o (1 - o); tanh(c): g o, and three for its derivative; sum with c';
    # i, f, g: a product each and three for each derivative; c: one more product; four sums for the biases.
    assert cost("lstm").backward.pointwise == (1 + 1 + 3 + 1 + 3 + 1 + 3 + 9 + 1 + 4) * b * t * h


def test_the_tape_of_the_lstm() -> None:
    """Four gates, tanh(c), and c; the other state is the output."""
    memory = cost("lstm").training_memory
    assert memory["tape"] == 6 * b * t * h
    assert memory["gates' gradients"] == 4 * b * t * h
    assert memory["weights"] == memory["weights' gradients"] == 4 * h * (d + h + 2)


def test_what_an_rnn_moves() -> None:
    """By hand: each array once in each pass that uses it."""
    rnn, rows, state = cost("rnn"), b * t, b * h
    weights, biases = h * (d + h), 2 * h
    assert rnn.inference_traffic.read == rnn.forward_traffic.read == weights + biases + rows * d + state
    assert rnn.inference_traffic.written == rows * h + state
    tape = rnn.training_memory["tape"]
    assert rnn.forward_traffic.written == rows * h + state + tape
    assert tape == 0 * b, "the output is all that the derivative needs"
    # The output, the gradients at the output and at the gate; biases have no part in the derivative.
    assert rnn.backward_traffic.read == weights + rows * d + 3 * rows * h + state
    assert rnn.backward_traffic.written == weights + biases + rows * d + rows * h + state


def test_what_is_held_of_two_layers() -> None:
    one, two = cost("gru").training_memory, cost("gru", 2).training_memory
    for name in ("outputs", "tape", "states"):
        assert two[name] == 2 * one[name]
    assert two["gates' gradients"] == one["gates' gradients"], "one layer after the other"
    assert two.total == sum((size for _, size in two.parts), b - b)
    inference = cost("gru", 5).inference_memory
    assert inference["outputs"] == 2 * b * t * h, "the input of a layer and its output"


@pytest.mark.parametrize("cell", EVERY)
def test_all_grows_linearly_with_length_and_batch(cell: Any) -> None:
    for layers in (1, 3):
        counted = cost(cell, layers)
        for each in (
            counted.forward.total,
            counted.backward.total,
            counted.training_memory.total,
            counted.inference_memory.total,
            counted.backward_traffic.total,
        ):
            assert each.degree("t") == each.degree("b") == 1
            numbers = [each.at(**(SIZES | {"t": length})) for length in (10, 20, 30)]
            assert numbers[2] - numbers[1] == numbers[1] - numbers[0] > 0


@pytest.mark.parametrize("cell", cells.FAMILIAR)
def test_no_operation_is_left_without_a_sequence(cell: str) -> None:
    counted = cost(cell, 2)
    for each in (counted.forward.total, counted.backward.total):
        assert each.at(b=2, t=0, d=3, h=4) == each.at(b=0, t=2, d=3, h=4) == 0


# --- operations -------------------------------------------------------------------------------------------------

_FUNCTIONS = "exp log sqrt sigmoid tanh softplus sin cos erf gelu silu elu pow"
_COPIES = (
    "clone _to_copy copy_ fill_ zero_ lift_fresh detach alias"  # pointwise to torch, but nothing is computed
)


@pytest.fixture(autouse=True, scope="module")
def _clamped_by_torch() -> Iterator[None]:
    """What is one operation of ours is one of torch's, too, whose derivative is another at bounds (`graph/ops.py`)."""

    def clamped(value: Tensor, low: Any, high: Any) -> Tensor:
        bounds = low, high
        tensors = (value, *bounds) if isinstance(low, float) else torch.broadcast_tensors(value, *bounds)
        return torch.clamp(*tensors)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ops, "_held", clamped)
        yield


class Watch(TorchDispatchMode):
    """Counts what torch really does: products as its own counter does, and each number that a pointwise op makes."""

    def __init__(self) -> None:
        super().__init__()
        self.products = self.pointwise = self.functions = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        packet = func.overloadpacket
        name = packet.__name__
        if packet in flop_registry:
            self.products += flop_registry[packet](*args, **(kwargs or {}), out_val=made)
            self.pointwise += made.numel() if name == "addmm" else 0
        elif torch.Tag.pointwise in func.tags and name not in _COPIES.split():
            self.pointwise += made.numel()
            # That with numbers is hard_sigmoid's: three operations of torch that are one of ours.
            self.pointwise -= 2 * made.numel() if func is torch.ops.aten.clamp.default else 0
            self.functions += made.numel() if name in _FUNCTIONS.split() else 0
        elif name in REDUCTIONS:
            self.pointwise += args[0].numel()
        return made


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", cells.FAMILIAR)
def test_operations_are_those_that_torch_is_seen_to_do(cell: str, layers: int, bias: bool) -> None:
    layer = cellwise.Recurrent(cell, D, H, num_layers=layers, bias=bias, backend="reference").eval()
    x = torch.randn(T, B, D, requires_grad=True)
    count = len(layer.cell.states)
    states = tuple(torch.randn(layers, B, H, requires_grad=True) for _ in range(count))
    with Watch() as forward:
        output, finals = layer(x, states if count > 1 else states[0])
    wanted = cost(cell, layers, bias)
    assert forward.products == wanted.forward.products.at(**SIZES)
    assert forward.pointwise == wanted.forward.pointwise.at(**SIZES)
    assert forward.functions == wanted.forward.functions.at(**SIZES)
    ends = [output, *(finals if count > 1 else (finals,))]
    with Watch() as backward:
        torch.autograd.backward(ends, [torch.ones_like(each) for each in ends])
    # torch's own formulas for the pointwise part are others; its products are the same.
    assert backward.products == wanted.backward.products.at(**SIZES)


def run_gate_by_gate(
    graph: StepGraph, value: Callable[[str], Tensor], x: Tensor, states: list[Tensor]
) -> Any:
    """A layer as the equations say it, one product for each gate, in plain torch. Returns all that comes out."""
    values: dict[Node, Tensor] = {}
    pieces = {}
    value = formed(graph, value, x.shape[-1])
    widths = widths_of(graph)
    for node in graph.nodes:
        if node.op is CONSTANT:
            values[node] = constant_tensor(node.attribute, x)
        elif node.op in (VECTOR, SCALAR):
            values[node] = value(str(node.attribute))
        elif node.op is INPUT:
            gate = str(node.attribute)
            projected = F.linear(x.flatten(0, 1), value(f"weight_ih {gate}"), value(f"bias_ih {gate}"))
            pieces[node] = projected.view(len(x), -1, widths.gates[gate].at(H))
        elif node in graph.part_nodes:
            parts = graph.input_parts
            pieces[node] = x.chunk(len(parts), dim=-1)[parts.index(str(node.attribute))]
        elif node.op is BESIDE:
            units = widths.inputs[str(node.attribute)]
            pieces[node] = torch.rand(len(x), x.shape[1], units.at(H) if units else 1)
        elif node.inputs and all(i in values for i in node.inputs):
            assert node.op.torch is not None
            values[node] = node.op.torch(*(values[i] for i in node.inputs))
    fixed = dict(values)
    outputs = []
    for step in range(len(x)):
        values = fixed | {node: piece[step] for node, piece in pieces.items()}
        values |= {node: states[graph.states.index(str(node.attribute))] for node in graph.of(STATE)}
        for node in graph.nodes:
            if node in values:
                continue
            if node.op is PROJECT:
                gate = str(node.attribute)
                bias = None if node.linear else value(f"bias_hh {gate}")
                operands = values[node.inputs[0]], value(f"weight_hh {gate}"), bias
                values[node] = multiplied(*operands, heads_of(graph))
            else:
                assert node.op.torch is not None
                values[node] = node.op.torch(*(values[i] for i in node.inputs))
        outputs += [values[node] for node in (graph.output, *graph.others)]
        states = [values[node] for node in graph.new_states]
    return [*outputs, *states]


def multiplied(operand: Tensor, weight: Tensor, bias: Tensor | None, heads: int) -> Tensor:
    """Head by head, where the weight is zero between them."""
    if heads == 1 or bias is None:
        return F.linear(operand, weight, bias)
    rows = [each.chunk(heads, dim=1)[place] for place, each in enumerate(weight.chunk(heads))]
    pieces = zip(operand.chunk(heads, dim=1), rows, bias.chunk(heads), strict=True)
    return torch.cat([F.linear(*each) for each in pieces], dim=1)


def formed(graph: StepGraph, value: Callable[[str], Tensor], width: int) -> Callable[[str], Tensor]:
    """The weights, those that are made of others made once."""
    found, widths = {}, widths_of(graph)
    for (kind, gate), form in graph.forms.items():
        rows, columns = widths.gates[gate].at(H), width if kind == "ih" else widths.columns[gate].at(H)
        shapes = FORMS[form.kind].parameters(form.number, rows, columns)
        with torch._C._DisableTorchDispatch():
            parameters = [torch.rand(shape).requires_grad_() for shape in shapes.values()]
            # No work of a call; kernels make a gradient at it with the others.
            triangle = torch.ones(rows, rows).tril().requires_grad_()
        found[f"weight_{kind} {gate}"] = made(form, parameters, rows, triangle) if shapes else triangle
    return lambda name: found[name] if name in found else value(name)


def check_operations(cell: Cell) -> None:
    made: dict[str, Tensor] = {}
    widths = widths_of(cell.graph)

    def value(name: str) -> Tensor:
        stem, _, gate = name.partition(" ")
        if gate:
            rows, columns = widths.gates[gate].at(H), widths.columns.get(gate, HIDDEN).at(H)
            shape = {"weight_ih": (rows, width), "weight_hh": (rows, columns)}.get(stem, (rows,))
        else:
            shape = () if name in cell.scalars else (widths.vectors[name].at(H),)
        with torch._C._DisableTorchDispatch():
            return made.setdefault(name, torch.rand(shape).requires_grad_())

    # Where no gradient flows through a state, the plan multiplies zeros that autograd leaves out.
    steps = T if len(differentiate(cell.graph).states) == len(cell.states) else 1
    sizes = SIZES | {"t": steps}
    width = len(cell.graph.input_parts) * H or D
    x = torch.randn(steps, B, width, requires_grad=True)
    states = [torch.rand(B, units.at(H), requires_grad=True) for units in widths.states.values()]
    wanted = cost(cell)
    with Watch() as forward:
        ends = run_gate_by_gate(cell.graph, value, x, states)
    assert forward.products == wanted.forward.products.at(**sizes)
    assert forward.pointwise == wanted.forward.pointwise.at(**sizes)
    assert forward.functions == wanted.forward.functions.at(**sizes)
    ends = [end for end in ends if end.requires_grad]
    with Watch() as backward:
        torch.autograd.backward(ends, [torch.ones_like(end) for end in ends])
    again = 2 * B * steps * done_again(cell.graph)
    # Nor does autograd go on to what a weight is made of where no gradient reaches its gate.
    assert backward.products + unreached(cell.graph, width) == wanted.backward.products.at(**sizes) + again


def unreached(graph: StepGraph, width: int) -> int:
    """The products for gradients at what weights are made of, of gates that no gradient comes back to."""
    derivative, widths = differentiate(graph), widths_of(graph)
    reached = {("ih", node.attribute) for node in derivative.inputs}
    reached |= {("hh", node.attribute) for node in derivative.products}
    missed = 0
    for (kind, gate), form in graph.forms.items():
        columns = width if kind == "ih" else widths.columns[gate].at(H)
        operations = FORMS[form.kind].operations(form.number, widths.gates[gate].at(H), columns)
        missed += 0 if (kind, gate) in reached else operations[2]
    return missed


def done_again(graph: StepGraph) -> int:
    """How many numbers of weights a row is multiplied by twice by autograd: where one gate has two operands, and the
    same gradient comes back to both through the same rows, the plan multiplies once."""
    derivative = differentiate(graph)
    live = {node for node in postorder(roots(derivative)) if node.op is PULLBACK}
    seen: dict[tuple[Node, ...], set[str]] = {}
    widths = widths_of(graph)
    again = 0
    for operand in dict.fromkeys(node.inputs[0] for node in derivative.products):
        users = [node for node in derivative.products if node.inputs[0] is operand]
        users.sort(key=lambda node: graph.gates.index(str(node.attribute)))
        key = tuple(derivative.products[node] for node in users)
        gates = " ".join(str(node.attribute) for node in users)
        if not any(node.inputs == key and node.attribute == gates for node in live):
            continue
        sizes = [widths.gates[gate].at(H) * widths.columns[gate].at(H) for gate in gates.split()]
        again += sum(sizes) if gates in seen.setdefault(key, set()) else 0
        seen[key].add(gates)
    return again


def roots(derivative: Derivative) -> list[Node]:
    found = (derivative.inputs, derivative.products, derivative.states, derivative.parameters)
    found += (derivative.beside,)
    return [node for each in found for node in each.values()]


@pytest.mark.parametrize("cell", [Parts(), cells.SLSTM(heads=2)])
def test_operations_of_a_cell_with_all_parts_and_of_one_with_heads(cell: Cell) -> None:
    check_operations(cell)


@given(cell=drawn_cells())
def test_operations_of_any_cell(cell: Cell) -> None:
    check_operations(cell)


def check_backward_pointwise(cell: Cell, recompute: bool = False) -> None:
    """One step of one row backward, each value made when it is asked for, from what is kept."""
    graph, kept = cell.graph, set(backward_plan(cell.graph, recompute=recompute).saved)
    derivative = differentiate(graph)
    values: dict[Node, Tensor] = {}
    widths = widths_of(graph)
    labels = arriving_outputs(graph)

    def size(node: Node) -> int:
        name = str(node.attribute)
        if node.op is GRADIENT:
            units = widths.outputs[labels[name]] if name in labels else widths.states[name]
        elif node.op is PULLBACK:
            units = widths.columns[name.split()[0]]
        else:
            units = widths.values[node] if node in widths.values else widths.beside.get(node)
        return int(units.at(H)) if units else 1

    def leaf(node: Node) -> Tensor:
        if node in kept or node.op in (GRADIENT, PULLBACK, INPUT, PROJECT, BESIDE):
            return torch.rand(1, H if not graph.widths and node.shape is not Shape.ROWS else size(node))
        assert node.op in (VECTOR, SCALAR, CONSTANT)
        return torch.rand((size(node),) if node.op is VECTOR else ())

    def ask(node: Node) -> Tensor:
        if node not in values:
            operands = [] if node in kept else [ask(i) for i in node.inputs]
            if operands and node.op not in (PULLBACK, PROJECT):
                with torch._C._DisableTorchDispatch():
                    operands = [in_row(node, operand) for operand in operands]
                meaning = (lambda value: value / H) if node.op is SHARE else node.op.torch
                assert meaning is not None
                values[node] = meaning(*operands)
            else:
                with torch._C._DisableTorchDispatch():
                    values[node] = leaf(node)
        return values[node]

    def in_row(node: Node, operand: Tensor) -> Tensor:
        """An operand as it stands in a row: all units to a reduction, one of them to what is a number of the row."""
        if node.op.kind is Kind.REDUCTION:
            return operand.expand(1, size_of_operand(node, operand))
        return operand[..., :1] if node.shape is Shape.ROWS and operand.dim() else operand

    def size_of_operand(node: Node, operand: Tensor) -> int:
        return operand.shape[-1] if node.inputs[0].shape.has_units and graph.widths else H

    def lies(leaf: Node, gradient: Node) -> int:
        if leaf.shape.has_units:
            return size(leaf)
        return values[gradient].numel() if graph.widths and gradient.shape.has_units else H

    unsummed = frozenset() if graph.input_gates else graph.part_nodes
    at_gates = {
        value
        for gates in (derivative.inputs, derivative.products)
        for node, value in gates.items()
        if not node.linear
    }
    with Watch() as watch:
        for root in roots(derivative):
            ask(root)
    leaves = {g: leaf for each in (derivative.inputs, derivative.products) for leaf, g in each.items()}
    sums = sum(lies(leaves[gradient], gradient) for gradient in at_gates)
    sums += sum(lies(*each) for each in derivative.parameters.items())
    sums += sum(lies(node, derivative.beside[node]) for node in {*derivative.beside} - unsummed)
    biases = sum(
        size(node) for node in values if node.op in (INPUT, PROJECT) and not node.linear and node not in kept
    )
    counted = cost(cell, recompute=recompute).backward
    one = {"b": 1, "t": 1, "d": D, "h": H}
    making = sum(
        FORMS[form.kind].operations(
            form.number, widths.gates[gate].at(H), D if kind == "ih" else widths.columns[gate].at(H)
        )[3]
        for (kind, gate), form in graph.forms.items()
    )
    assert counted.pointwise.at(**one) == watch.pointwise + sums + biases + making
    assert counted.functions.at(**one) == watch.functions
    again = [node for node in values if node in set(graph.nodes) and node not in kept and node.inputs]
    made = sum(values[n].numel() for n in again if not n.op.free and n.op is not PROJECT)
    made += sum(size(n.inputs[0]) - 1 for n in again if n.op.kind is Kind.REDUCTION)
    assert counted.recomputed.at(**one) == made + biases


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("cell", EVERY)
def test_backward_pointwise_work_is_what_an_interpreter_does(cell: Any, recompute: bool) -> None:
    check_backward_pointwise(cells.get(cell), recompute)


def _of_two_widths(met: Callable[..., Any]) -> Cell:
    """A value without units of its own, that units of two widths meet."""

    class OfTwoWidths(Cell):
        gates, states, inputs = ("a", "b"), ("h", "s"), ("dt",)
        widths = {"s": 2}  # noqa: RUF012
        k, v = Scalar(0.5), Vector(0.5)

        def step(self, x: Any, h: Any, s: Any, dt: Any) -> Any:
            value = met(self, h, dt)
            return tanh(x.a + self.k * self.v * dt + value * h), tanh(x.b + value * s)

    return OfTwoWidths()


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize(
    "met",
    [
        pytest.param(lambda cell, h, dt: cell.k, id="number"),
        pytest.param(lambda cell, h, dt: exp(-cell.k), id="of a number"),
        pytest.param(lambda cell, h, dt: mean(h), id="reduction"),
        pytest.param(
            lambda cell, h, dt: mean(where(cell.v > 0, mean(h), cellwise.sum(h))),
            id="reduction of reductions",
        ),
        pytest.param(lambda cell, h, dt: dt, id="beside"),
        pytest.param(lambda cell, h, dt: cell.k * exp(-dt), id="of beside"),
    ],
)
def test_what_units_of_two_widths_meet(met: Callable[..., Any], recompute: bool) -> None:
    check_operations(_of_two_widths(met))
    check_backward_pointwise(_of_two_widths(met), recompute)


@given(cell=drawn_cells(gradient=False), recompute=st.booleans())
def test_backward_pointwise_work_of_any_cell(cell: Cell, recompute: bool) -> None:
    check_backward_pointwise(cell, recompute)


@pytest.mark.parametrize("cell", ["lstm", "gru", "gru-reset-before", "lstm-peephole"])
def test_a_step_that_is_computed_again_has_the_products_of_a_step(cell: str) -> None:
    kept, again = cost(cell, 2), cost(cell, 2, recompute=True)
    assert again.backward.products == kept.backward.products + kept.forward.products
    assert again.forward == kept.forward


def test_what_is_made_of_parameters_alone_is_made_once() -> None:
    counted = cost(Parts).forward
    # exp(u) and its product with a number, once for each unit; -k and exp(-k) once.
    assert counted.pointwise.part("t", 0) == 2 * h + 2
    assert counted.functions.part("t", 0) == h + 1


def test_what_no_gradient_reaches_costs_nothing_backward() -> None:
    class Cut(Cell):
        gates = ("a", "n")

        def step(self, x, h):
            return tanh(stop_gradient(x.a + h.a) * h + x.n)

    counted = cost(Cut).backward
    assert counted.products == 4 * b * t * d * h, "only the gate n, at the input"


def test_every_op_is_counted_as_what_it_is() -> None:
    """An op new to the table must be sorted here: one instruction or two, an elementary function, or nothing."""
    plain = "add sub mul div neg relu abs minimum maximum less less_equal where clamp "
    plain += "hard_sigmoid hard_tanh floor sign"
    functions = [name for name, op in POINTWISE.items() if op.kind is Kind.FUNCTION]
    free = [name for name, op in POINTWISE.items() if op.free]
    assert sorted(functions) == sorted(_FUNCTIONS.split())
    assert sorted([*plain.split(), *functions, *free]) == sorted(POINTWISE)


# --- memory -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", EVERY)
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("hidden", [16, 21])
def test_what_a_training_step_keeps_is_what_the_kernels_save(
    cell: Any, layers: int, recompute: bool, hidden: int, vector_bytes: int
) -> None:
    layer = cellwise.Recurrent(cell, D, hidden, num_layers=layers, backend="cpu").eval()
    layer.recompute = recompute
    x = torch.randn(T, B, D, requires_grad=True)
    saved: dict[int, Tensor] = {}

    def note(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point() and tensor.numel():
            saved[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    # Small calls, whose memory is no matter, keep what a layer hands to the next both in whole vectors and as it is.
    small = mock.patch.object(LlvmCompiler, "small_pass", lambda *_: None)
    with small, torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output, _ = layer(x)
    # What stands for an output that no backward pass reads has one number. The next layer keeps that output, or the
    # caller has it.
    stand_ins = [at for at, tensor in saved.items() if tensor.untyped_storage().nbytes() < tensor.nbytes]
    if stand_ins:
        note(output[0] if isinstance(output, tuple) else output)
    memory = cost(cell, layers, recompute=recompute).training_memory
    sizes = SIZES | {"h": hidden}
    kept = sum(tensor.untyped_storage().nbytes() // 4 for at, tensor in saved.items() if at not in stand_ins)
    # Initial states that nobody gave are zeros, which all calls have in common.
    names = ["weights", "input", "tape", "outputs"]
    names += ["beside x"] if layer.cell.inputs else []
    names += [name for name, _ in memory.copies if name == "outputs in whole vectors"]
    assert kept == sum(memory.part(name, vector_bytes // 4, **sizes) for name in names)


def test_memory_without_padding_is_that_of_the_formula() -> None:
    memory = cost("lstm", 2).training_memory
    assert memory.at(**SIZES) == memory.at(4, **SIZES) == memory.total.at(**SIZES)
    assert memory.at(8, **SIZES) > memory.total.at(**SIZES)
