"""Every op of the table is known to all who must know it, means what it should, and is what its row says."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import cellwise
from cellwise.backends.cpu.reductions import TOGETHER
from cellwise.backends.cpu.vectors import LOWERINGS
from cellwise.graph import evaluate
from cellwise.graph.expr import Node
from cellwise.graph.habits import SIGNS
from cellwise.graph.ops import CONSTANT, INPUT, OPS, POINTWISE, PROJECT, REDUCTIONS, STATE, Op
from cellwise.passes.differentiate import RULES, SHARE
from cellwise.testing.strategies import APPLY
from cellwise.understand import backward_equations
from cellwise.understand.latex import WRITTEN

COMPUTED = POINTWISE | REDUCTIONS
# Ops that only a derivative on paper has.
ON_PAPER = {op.name for op in (*vars(backward_equations).values(), SHARE) if isinstance(op, Op)} - set(OPS)

# What each op is, as a second opinion: on Python's own numbers.
CLOSED_FORMS: dict[str, Any] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "neg": lambda a: -a,
    "exp": math.exp,
    "log": lambda a: math.log(a) if a > 0 else math.nan,
    "sqrt": lambda a: math.sqrt(a) if a >= 0 else math.nan,
    "sigmoid": lambda a: 1 / (1 + math.exp(-a)),
    "tanh": math.tanh,
    "relu": lambda a: max(a, 0.0),
    "softplus": lambda a: math.log1p(math.exp(a)),
    "sin": math.sin,
    "cos": math.cos,
    "erf": math.erf,
    "gelu": lambda a: a * math.erfc(-a / math.sqrt(2)) / 2,
    "silu": lambda a: a / (1 + math.exp(-a)),
    "elu": lambda a: a if a > 0 else math.expm1(a),
    "hard_sigmoid": lambda a: min(max((a + 3) / 6, 0.0), 1.0),
    "hard_tanh": lambda a: min(max(a, -1.0), 1.0),
    "pow": math.pow,
    "floor": math.floor,
    "sign": lambda a: math.copysign(1, a),
    "abs": abs,
    "minimum": min,
    "maximum": max,
    "less": lambda a, b: a < b,
    "less_equal": lambda a, b: a <= b,
    "where": lambda mask, a, b: a if mask else b,
    "clamp": lambda a, low, high: min(max(a, low), high),
    "stop_gradient": lambda a: a,
}

DERIVATIVES: dict[str, Any] = {
    "add": lambda a, b: (1, 1),
    "sub": lambda a, b: (1, -1),
    "mul": lambda a, b: (b, a),
    "div": lambda a, b: (1 / b, -a / b**2),
    "neg": lambda a: (-1,),
    "exp": lambda a: (math.exp(a),),
    "log": lambda a: (1 / a,) if a > 0 else (math.nan,),
    "sqrt": lambda a: (0.5 / math.sqrt(a),) if a > 0 else (math.nan,),
    "sigmoid": lambda a: (math.exp(-a) / (1 + math.exp(-a)) ** 2,),
    "tanh": lambda a: (1 / math.cosh(a) ** 2,),
    "relu": lambda a: (float(a > 0),),
    "softplus": lambda a: (1 / (1 + math.exp(-a)),),
    "sin": lambda a: (math.cos(a),),
    "cos": lambda a: (-math.sin(a),),
    "erf": lambda a: (2 * math.exp(-(a**2)) / math.sqrt(math.pi),),
    "gelu": lambda a: (math.erfc(-a / 2**0.5) / 2 + a * math.exp(-(a**2) / 2) / math.sqrt(2 * math.pi),),
    "silu": lambda a: ((1 + math.exp(-a) * (1 + a)) / (1 + math.exp(-a)) ** 2,),
    "elu": lambda a: (1.0 if a > 0 else math.exp(a),),
    "hard_sigmoid": lambda a: (1 / 6,),
    "hard_tanh": lambda a: (float(-1 < a < 1),),
    "pow": lambda a, b: (b * a ** (b - 1), a**b * math.log(a)),
    "floor": lambda a: (0.0,),
    "sign": lambda a: (0.0,),
    "abs": lambda a: (math.copysign(1, a),),
    "minimum": lambda a, b: (float(a < b), float(b < a)),
    "maximum": lambda a, b: (float(a > b), float(b > a)),
    "clamp": lambda a, low, high: (float(low < a < high), float(a < low), float(a > high)),
    "stop_gradient": lambda a: (0.0,),
}

# What each reduction is of Python's own numbers, and its derivative.
REDUCED: dict[str, Any] = {
    "sum": (math.fsum, lambda row: [1.0] * len(row)),
    "mean": (statistics.fmean, lambda row: [1 / len(row)] * len(row)),
    "amax": (max, lambda row: [(each == max(row)) / row.count(max(row)) for each in row]),
}

# --- an op is known everywhere ----------------------------------------------------------------------------------------


# Who must know each op that computes with numbers, and what that table holds.
TABLES: dict[str, set[str]] = {
    "a meaning, in graph/ops.py": {name for name, op in COMPUTED.items() if op.torch is not None},
    "a sign in graph/habits.py, or a function of cellwise": set(SIGNS)
    | {name for name in COMPUTED if callable(getattr(cellwise, name, None))},
    "a derivative, in passes/differentiate.py": set(RULES),
    "vector instructions, in backends/cpu/vectors.py or reductions.py": set(LOWERINGS) | set(TOGETHER),
    "LaTeX, in understand/latex.py": set(WRITTEN) - ON_PAPER - {INPUT.name, PROJECT.name},
    "a way into random cells, in testing/strategies.py": set(APPLY),
    "a closed form, in this file": set(CLOSED_FORMS) | set(REDUCED),
}


@pytest.mark.parametrize("what", TABLES)
def test_every_op_has(what: str) -> None:
    known, ops = TABLES[what], set(COMPUTED)
    assert not ops - known, f"these ops of the table have not got {what}: {ops - known}"
    assert not known - ops, f"there is {what}, of ops that do not exist: {known - ops}"


def test_matrix_products_are_written_in_latex_too() -> None:
    assert {INPUT.name, PROJECT.name} <= set(WRITTEN)


# --- what a row says is so --------------------------------------------------------------------------------------


def value(op: Op, numbers: Sequence[float]) -> float:
    operands = [torch.tensor(each, dtype=torch.float64) for each in numbers]
    if op.takes_mask:
        operands[0] = operands[0] > 0
    assert op.torch is not None
    return float(op.torch(*operands))


@pytest.mark.parametrize("name", [name for name, op in POINTWISE.items() if not op.makes_mask])
def test_what_makes_much_of_a_tiny_difference_says_so(name: str) -> None:
    op, much = POINTWISE[name], False
    for numbers in itertools.product([1.0, 1e-40, -1e-40], repeat=op.operands):
        mask, rest = (numbers[:1], numbers[1:]) if op.takes_mask else ((), numbers)
        zeros = [0.0 if abs(each) < 1e-38 else each for each in rest]
        found, flushed = value(op, (*mask, *rest)), value(op, (*mask, *zeros))
        much |= not (found == flushed or abs(found - flushed) < 1e-30)
    assert much == op.amplifies


@pytest.mark.parametrize("name", [name for name, op in POINTWISE.items() if not op.makes_mask])
def test_values_lie_in_the_range(name: str) -> None:
    op = POINTWISE[name]
    grid = [-40.0, -3.2, -1.5, -0.3, 0.0, 0.3, 1.5, 3.0, 40.0]
    found = [value(op, numbers) for numbers in itertools.product(grid, repeat=op.operands)]
    numbers = [each for each in found if not math.isnan(each)]
    if op.range is None:
        assert min(numbers) < -1 and max(numbers) > 1
    else:
        low, high = op.range
        assert low <= min(numbers) <= low + 0.1 and max(numbers) <= high
        assert max(numbers) >= (high - 0.1 if math.isfinite(high) else 5)


def test_what_is_free_is_its_operand() -> None:
    free = [op for op in POINTWISE.values() if op.free]
    assert all(value(op, [each]) == each for op in free for each in (-1.5, 0.0, 2.0))
    assert {op.name for op in free} == {"stop_gradient"}


# --- meanings ---------------------------------------------------------------------------------------------------

NUMBERS = st.floats(-3, 3).filter(lambda v: abs(v) > 1e-3)


@pytest.mark.parametrize(
    ("name", "numbers", "wanted"),
    [
        ("clamp", (-0.5, -0.5, 0.25), [1.0, 0.0, 0.0]),
        ("clamp", (0.25, -0.5, 0.25), [1.0, 0.0, 0.0]),
        ("hard_sigmoid", (-3.0,), [1 / 6]),
        ("hard_sigmoid", (3.0,), [1 / 6]),
        ("hard_tanh", (-1.0,), [0.0]),
        ("hard_tanh", (1.0,), [0.0]),
        ("relu", (0.0,), [0.0]),
    ],
)
def test_derivatives_at_bounds(name: str, numbers: tuple[float, ...], wanted: list[float]) -> None:
    """As the kernels have them, whatever a release of torch makes of its own functions there."""
    leaves = [Node(CONSTANT, (), each) for each in numbers]
    node = Node(OPS[name], tuple(leaves))
    tensors = [torch.tensor(each, dtype=torch.float64, requires_grad=True) for each in numbers]
    values = dict(zip(leaves, tensors, strict=True))
    evaluate([node], values)
    assert [float(each) for each in torch.autograd.grad(values[node], tensors)] == pytest.approx(wanted)


@pytest.mark.parametrize("name", POINTWISE)
@given(numbers=st.tuples(NUMBERS, NUMBERS, NUMBERS).filter(lambda t: len(set(t)) == 3))
def test_the_meaning_of_an_op(name: str, numbers: tuple[float, float, float]) -> None:
    op = OPS[name]
    given_numbers: list[Any] = list(numbers[: op.operands])
    if name == "clamp":
        given_numbers[1:] = sorted(given_numbers[1:])
    if name == "where":
        given_numbers[0] = given_numbers[0] > 0
    if name == "pow":  # of numbers below 0 there is no real power but for whole ones
        given_numbers[0] = abs(given_numbers[0]) or 1.0
    leaves = [Node(CONSTANT, (), each) for each in given_numbers]
    node = Node(op, tuple(leaves))
    tensors = [
        torch.tensor(each, dtype=torch.bool if each is True or each is False else torch.float64)
        for each in given_numbers
    ]
    for tensor in tensors:
        tensor.requires_grad_(tensor.is_floating_point())
    values = dict(zip(leaves, tensors, strict=True))
    evaluate([node], values)
    wanted = CLOSED_FORMS[name](*given_numbers)
    assert values[node].item() == pytest.approx(wanted, rel=1e-12, abs=1e-15, nan_ok=True)
    if name in DERIVATIVES and not math.isnan(wanted):
        total = values[node] + 0 * sum(tensors)
        found = [float(g) for g in torch.autograd.grad(total, tensors)]
        assert found == pytest.approx(list(DERIVATIVES[name](*given_numbers)), rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("name", [name for name, op in POINTWISE.items() if not op.makes_mask])
def test_an_op_takes_all_shapes_of_a_step_and_derives_them(name: str) -> None:
    op = OPS[name]
    for shapes in itertools.product([(2, 3), (3,), ()], repeat=op.operands):
        operands = [torch.rand(shape, dtype=torch.float64).requires_grad_() for shape in shapes]
        leaves = [Node(CONSTANT, (), float(i)) for i in range(op.operands)]
        given_values = [operands[0] > 0.5, *operands[1:]] if name == "where" else operands
        values = dict(zip(leaves, given_values, strict=True))
        node = Node(op, tuple(leaves))
        evaluate([node], values)
        assert values[node].shape == torch.broadcast_shapes(*shapes), shapes
        if values[node].requires_grad:
            gradients = torch.autograd.grad(
                values[node].sum(), operands, materialize_grads=True, allow_unused=True
            )
            assert [gradient.shape for gradient in gradients] == [torch.Size(shape) for shape in shapes]


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("row", [(1.5,), (0.25, -2.0, 3.0), (2.0, 2.0, -1.0)])
def test_the_meaning_of_a_reduction(name: str, row: tuple[float, ...]) -> None:
    leaf = Node(STATE, (), "h")
    node, tensor = Node(OPS[name], (leaf,)), torch.tensor([row, row], dtype=torch.float64, requires_grad=True)
    values = {leaf: tensor}
    evaluate([node], values)
    wanted, derivative = REDUCED[name]
    assert values[node].tolist() == [[pytest.approx(wanted(row))]] * 2
    (found,) = torch.autograd.grad(values[node].sum(), tensor)
    assert found.tolist() == [pytest.approx(derivative(row))] * 2
