"""Programs compute what the equations say, forward and backward, apart from any backend that compiles them.

An interpreter runs them word by word; the truth is the layer on the reference backend, differentiated by torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from program_interpreter import Interpreter
from torch import Tensor

import cellwise
from cellwise import Cell, cells, tanh
from cellwise.backends.base import Weights
from cellwise.nn.biases import filled
from cellwise.nn.recurrent import RecurrentLayer
from cellwise.plan import filling_of
from cellwise.plan.backward import (
    BESIDE_GRADIENTS,
    PROJECTED_GRADIENT,
    RECOMPUTED,
    BackwardPlan,
    backward_plan,
)
from cellwise.plan.buffers import beside_buffer
from cellwise.plan.forward import forward_program
from cellwise.plan.hoist import hoisted
from cellwise.plan.listing import listing
from cellwise.plan.program import Program, Slot, Width
from cellwise.testing.strategies import cells as drawn_cells

T, B, D, H, P = 3, 2, 4, 3, 2
WIDTHS = {Width.INPUT: D, Width.HIDDEN: H, Width.PROJECTED: P}
# A program as it is, and with the input's products before the steps.
FORMS: dict[str, Callable[[Program], Program]] = {"fused": lambda program: program, "hoisted": hoisted}


class Problem:
    """A layer of one direction with its input and states, and what torch says of a loss on all that comes out."""

    def __init__(self, cell: Cell, proj_size: int = 0) -> None:
        sizes: dict[str, Any] = {"backend": "reference", "dtype": torch.float64}
        self.layer: RecurrentLayer = (
            cellwise.LSTM(D, H, proj_size=proj_size, **sizes)
            if proj_size
            else cellwise.Recurrent(cell, len(cell.graph.input_parts) * H or D, H, **sizes)
        )
        self.graph, self.projected = cell.graph, bool(proj_size)
        first, *others = (H for _ in cell.states)
        self.initial = tuple(_leaf(1, B, size) for size in (proj_size or first, *others))
        self.x = _leaf(T, B, self.layer.input_size)
        given_states = self.initial if len(self.initial) > 1 else self.initial[0]
        self.beside = {
            name: torch.rand(T, B, H, dtype=torch.float64, requires_grad=True) for name in cell.inputs
        }
        output, finals = self.layer.eval()(self.x, given_states, **self.beside)
        # (T, outputs, B, H), as a program has them.
        self.output = torch.stack(output if isinstance(output, tuple) else (output,), 1)
        self.finals = finals if isinstance(finals, tuple) else (finals,)
        self.seeds = tuple(torch.randn_like(each) for each in (self.output, *self.finals))
        self.parameters = {name.removesuffix("_l0"): each for name, each in self.layer.named_parameters()}
        # As programs take them: whole, where they are made of others.
        filling = filling_of(self.graph, H, self.layer.bias)
        self.whole = filled((Weights(self.parameters),), filling)[0].by_stem
        self.derived = [stem for stem, _ in filling.derived] if filling else []
        self.widths = WIDTHS | {Width.INPUT: self.layer.input_size}
        self.weights = {name: each.detach() for name, each in self.whole.items()}
        parts = self.graph.input_parts
        self.parts = dict(zip(parts, self.x.detach().chunk(max(1, len(parts)), dim=-1), strict=False))
        gates = {"ih": self.graph.input_gates, "hh": self.graph.state_gates}
        self.gates = {f"{kind}_{end}": names for kind in ("weight", "bias") for end, names in gates.items()}
        self.gates["weight_hr"] = ("",)

    def gradients(self) -> dict[str, Tensor]:
        """At x, the initial states by name, and the parameters."""
        named = {"x": self.x, **dict(zip(self.graph.states, self.initial, strict=True)), **self.parameters}
        named |= self.beside
        loss = sum((a * b).sum() for a, b in zip((self.output, *self.finals), self.seeds, strict=True))
        found = torch.autograd.grad(loss, list(named.values()), materialize_grads=True, allow_unused=True)
        return dict(zip(named, found, strict=True))

    def own(self) -> dict[str, Tensor]:
        """The cell's own parameters and what stands beside x, by the names of their buffers."""
        own = {f"own {name}": self.weights[name] for name in (*self.graph.vectors, *self.graph.scalars)}
        given = (self.beside | self.parts).items()
        beside = {beside_buffer(name).name: each.detach().unsqueeze(1) for name, each in given}
        return own | beside

    def forward(self, program: Program) -> tuple[Interpreter, tuple[Tensor, ...]]:
        given_buffers = {"x": self.x.detach().unsqueeze(1), **self.own()}
        initial = tuple(state[0].detach() for state in self.initial)
        run = Interpreter(program, self.weights, self.gates, given_buffers, initial, T, self.widths)
        return run, run.run()


def _leaf(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


def check_forward(problem: Problem, program: Program) -> None:
    run, finals = problem.forward(program)
    assert_near(run.written("output"), problem.output)
    for found, wanted in zip(finals, problem.finals, strict=True):
        assert_near(found, wanted[0])


def assert_near(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted.detach(), rtol=1e-10, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", cells.FAMILIAR)
def test_forward(name: str, form: str) -> None:
    problem = Problem(cells.get(name))
    check_forward(problem, FORMS[form](forward_program(problem.graph, None)))


@given(cell=drawn_cells(gradient=False, widths=False))
def test_forward_of_any_cell(cell: Cell) -> None:
    problem = Problem(cell)
    for form in FORMS:
        check_forward(problem, FORMS[form](forward_program(cell.graph, None)))


def check_backward(problem: Problem, form: str, recompute: bool = False) -> None:
    """What the forward program kept, and the backward program on it, against torch's gradients."""
    plan = backward_plan(problem.graph, problem.projected, recompute)
    program = FORMS[form](forward_program(problem.graph, plan.tape, problem.projected))
    check_forward(problem, program)
    run, _ = problem.forward(program)
    memory = kept_of(problem, run, plan)
    arriving = tuple(seed[0] for seed in problem.seeds[1:])
    back = Interpreter(
        FORMS[form](plan.program), problem.weights, problem.gates, memory, arriving, T, problem.widths
    )
    at_states = back.run(reverse=True)
    wanted = problem.gradients()
    for name, found in {
        **dict(zip(problem.graph.states, at_states, strict=True)),
        **gradients_of(problem, plan, back),
    }.items():
        assert_near(found, wanted[name][0] if name in problem.graph.states else wanted[name])


def kept_of(problem: Problem, run: Interpreter, plan: BackwardPlan) -> dict[str, Tensor]:
    """What the backward program is given: what came out, the states before each step, the tape, gradients."""
    output = run.written("output")
    memory = {"x": run.memory["x"], "output": output, "gradient output": problem.seeds[0]}
    memory |= problem.own()
    if plan.tape.columns:
        memory["tape"] = run.written("tape")
    if plan.tape.row_columns:
        memory["row tape"] = run.written("row tape")
    for name, initial, history in zip(problem.graph.states, problem.initial, run.history, strict=True):
        assert_near(history[0], initial[0])
        memory[f"{name} before"] = history.unsqueeze(1)
    return memory


def gradients_of(problem: Problem, plan: BackwardPlan, back: Interpreter) -> dict[str, Tensor]:
    """Those at x and the weights, from those at gates: products over all steps, whatever the forward program did."""
    found: dict[str, Tensor] = {}
    at_gates = back.written("gates") if plan.inputs or plan.products else None

    def add(stem: str, gate: str, column: int, operand: Tensor) -> None:
        assert at_gates is not None
        index, gradient = problem.gates[stem].index(gate), at_gates[:, column]
        blocks = found.setdefault(stem, torch.zeros_like(problem.weights[stem]))
        blocks.view(len(problem.gates[stem]), H, -1)[index] += torch.einsum("tbh,tbk->hk", gradient, operand)
        biases = problem.graph.input_biases if stem == "weight_ih" else problem.graph.state_biases
        if gate in biases:
            zeros = torch.zeros(len(biases) * H, dtype=torch.float64)
            bias = found.setdefault(stem.replace("weight", "bias"), zeros)
            bias.view(-1, H)[biases.index(gate)] += back.sums["bias sums", column]

    for gate, column in plan.inputs:
        add("weight_ih", gate, column, problem.x.detach())
        index = problem.gates["weight_ih"].index(gate)
        rows = problem.weights["weight_ih"].view(-1, H, problem.layer.input_size)[index]
        assert at_gates is not None
        found["x"] = found.get("x", torch.zeros(())) + at_gates[:, column] @ rows
    for gate, column, slot in plan.products:
        add("weight_hh", gate, column, rows_of(back, slot))
    if plan.unprojected is not None:
        gradient = back.written(PROJECTED_GRADIENT.name)[:, 0]
        found["weight_hr"] = torch.einsum("tbp,tbh->ph", gradient, rows_of(back, plan.unprojected))
    at_parts = {part: torch.zeros(T, B, H, dtype=torch.float64) for part in problem.parts}
    for column, name in enumerate(plan.beside):
        at = at_parts if name in at_parts else found
        at[name] = back.written(BESIDE_GRADIENTS)[:, column]
    if at_parts:
        found["x"] = found.get("x", torch.zeros(())) + torch.cat([*at_parts.values()], dim=-1)
    for column, name in enumerate(plan.parameters):
        total = back.sums["sums", column]
        found[name] = total.sum() if name in problem.graph.scalars else total
    for stem in problem.derived:
        sources = [name for name in problem.parameters if name.startswith(stem)]
        whole, gradient = problem.whole[stem], found.pop(stem, torch.zeros_like(problem.whole[stem]))
        given = [problem.parameters[name] for name in sources]
        if given:  # else nothing is learned of it
            made = torch.autograd.grad(whole, given, gradient, retain_graph=True)
            found |= zip(sources, made, strict=True)
    return found


def rows_of(back: Interpreter, slot: Slot) -> Tensor:
    """(T, B, width), of what was kept or computed again."""
    buffer = slot.buffer
    return (back.written(buffer.name) if buffer.name == RECOMPUTED else back.memory[buffer.name])[
        :, slot.column
    ]


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", cells.FAMILIAR)
def test_backward(name: str, form: str, recompute: bool) -> None:
    check_backward(Problem(cells.get(name)), form, recompute)


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_projected(form: str, recompute: bool) -> None:
    check_backward(Problem(cells.get("lstm"), proj_size=P), form, recompute)


@given(cell=drawn_cells(gradient=False, widths=False))
def test_backward_of_any_cell(cell: Cell) -> None:
    for form in FORMS:
        for recompute in (False, True):
            check_backward(Problem(cell), form, recompute)


# --- the input's product ----------------------------------------------------------------------------------------


def test_the_listing_says_where_the_input_is_multiplied() -> None:
    graph = cells.get("gru").graph
    fused = forward_program(graph, None)
    text = listing(hoisted(fused), graph)
    assert (
        "before the steps, for many of them at once\n  products\n    x × weight_ih[r, z, n] → [0], [1], [2]\n"
        in text
    )
    assert "columns: W_ir x + b_ir; W_iz x + b_iz; W_in x + b_in" in text
    assert "r = σ(W_ir x + b_ir + W_hr h + b_hr)" in text
    assert "before the steps" not in listing(fused, graph)


@pytest.mark.parametrize("name", cells.FAMILIAR)
def test_a_hoisted_step_multiplies_no_input(name: str) -> None:
    fused = forward_program(cells.get(name).graph, None)
    program = hoisted(fused)
    stems = {term.weight.stem for stage in program.stages for term in stage.terms}
    assert stems <= {"weight_hh"}
    # Whoever calls it gives it the same buffers.
    assert program.buffers[:-1] == fused.buffers and program.buffers[-1].name == "input products"


def test_a_cell_that_asks_its_input_for_nothing_has_nothing_to_hoist() -> None:
    class Free(Cell):
        gates = ("n",)

        def step(self, x, h):
            return tanh(h.n)

    program = forward_program(Free().graph, None)
    assert hoisted(program) is program
    assert hoisted(backward_plan(cells.get("gru").graph).program).before_loop == ()


def test_an_input_product_that_is_multiplied_again_is_copied_for_it() -> None:
    """A product reads its operand row by row, which what lies ahead is not."""

    class Twice(Cell):
        gates = ("a", "n")

        def step(self, x, h):
            return tanh(x.n + (x.a).n + h.n)

    check_backward(Problem(Twice()), "hoisted", recompute=True)
    stages = hoisted(forward_program(Twice().graph, None)).stages
    assert any(slot.buffer.name == "between" for stage in stages for _, slot in stage.writes)
