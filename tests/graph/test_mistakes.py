"""Every mistake in a cell is one clear error: it shows the user's own line and the way out."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import cellwise
from cellwise import Cell, CellwiseError, Scalar, Vector, cells, cumsum, exp, relu, tanh, where
from cellwise.errors import (
    CellDefinitionError,
    CellOptionError,
    ConcreteValueError,
    ReturnError,
    ShapeError,
    StepError,
    UnknownCellError,
    UnknownGateError,
)

# What is written in the step; the error; what its text must say beside the line.
STEPS: dict[str, tuple[Any, type[CellwiseError], tuple[str, ...]]] = {
    "unknown-gate-of-x": (
        lambda self, x, h: tanh(x.q + h.n),  # line
        UnknownGateError,
        ("'q'", "its gates are n", 'Add "q" to gates'),
    ),
    "unknown-gate-of-h": (
        lambda self, x, h: tanh(x.n + h.q),  # line
        UnknownGateError,
        ("'q'", "its gates are n"),
    ),
    "nothing-returned": (
        lambda self, x, h: None,  # line
        ReturnError,
        ("must return", "None"),
    ),
    "too-many-returned": (
        lambda self, x, h: (tanh(x.n), h),  # line
        ReturnError,
        ("1 value (h)", "returned 2", "Write: return h"),
    ),
    "number-returned": (lambda self, x, h: 3.0, ReturnError, ("a float",)),  # line
    "list-returned": (lambda self, x, h: [tanh(x.n)], ReturnError, ("a list",)),  # line
    "comparison-returned": (lambda self, x, h: x.n > 0, ReturnError, ("a comparison",)),  # line
    "vector-returned": (lambda self, x, h: self.u * 2, ReturnError, ("shape (H,)",)),  # line
    "scalar-returned": (lambda self, x, h: self.q * 2, ReturnError, ("shape ()",)),  # line
    "python-if": (
        lambda self, x, h: x.n if x.n > 0 else h,  # line
        ConcreteValueError,
        ("Python's if", "where(condition, a, b)"),
    ),
    "python-and": (lambda self, x, h: x.n and h, ConcreteValueError, ("where",)),  # line
    "python-max": (lambda self, x, h: max(x.n, h), ConcreteValueError, ("maximum",)),  # line
    "math-tanh": (
        lambda self, x, h: math.tanh(x.n),
        ConcreteValueError,
        ("cellwise.tanh instead of math.tanh",),
    ),
    "numpy-tanh": (
        lambda self, x, h: np.tanh(x.n),
        ConcreteValueError,
        ("cellwise.tanh instead of np.tanh",),
    ),
    "numpy-array": (lambda self, x, h: np.ones(3) * x.n, ConcreteValueError, ("numpy",)),  # line
    "torch-tanh": (
        lambda self, x, h: torch.tanh(x.n),  # line
        ConcreteValueError,
        ("cellwise.tanh instead of torch.tanh",),
    ),
    "torch-keyword": (
        lambda self, x, h: torch.tanh(input=x.n),
        ConcreteValueError,
        ("cellwise.tanh",),
    ),  # line
    "torch-nested": (
        lambda self, x, h: torch.stack([x.n, h]),
        ConcreteValueError,
        ("torch function",),
    ),  # line
    "torch-add": (lambda self, x, h: torch.add(1.0, h), ConcreteValueError, ("Use + instead of torch.add",)),
    "functional-relu": (
        lambda self, x, h: F.relu(x.n),
        ConcreteValueError,
        ("cellwise.relu instead of F.relu",),
    ),
    "tensor": (
        lambda self, x, h: x.n * torch.ones(3),
        ShapeError,
        ("torch.Tensor", "Vector or a Scalar"),
    ),  # line
    "tensor-on-the-left": (lambda self, x, h: torch.ones(3) * x.n, ShapeError, ("torch.Tensor",)),  # line
    "string": (lambda self, x, h: x.n + "1", ShapeError, ("add was given a str",)),  # line
    "bool": (lambda self, x, h: x.n * True, ShapeError, ("a bool",)),  # line
    "none": (lambda self, x, h: x.n * None, ShapeError, ("None",)),  # line
    "nan": (lambda self, x, h: x.n * float("nan"), ShapeError, ("the number nan", "inf * 0")),  # line
    "by-zero": (lambda self, x, h: x.n + h / 0, ShapeError, ("divided by the number 0",)),  # line
    "matrix-product": (lambda self, x, h: h @ h, ConcreteValueError, ("h.gate",)),  # line
    "gate-called": (lambda self, x, h: h.n(x), ConcreteValueError, ("without brackets",)),  # line
    "floor-division": (lambda self, x, h: h // 2, ConcreteValueError, ("//", "floor(a / b)")),  # line
    "remainder": (lambda self, x, h: h % 2, ConcreteValueError, ("%",)),  # line
    "and-of-masks": (
        lambda self, x, h: where((x.n > 0) & (h > 0), x.n, h),
        ConcreteValueError,
        ("&",),
    ),  # line
    "not-of-mask": (
        lambda self, x, h: where(~(x.n > 0), x.n, h),
        ConcreteValueError,
        ("~", "exchanged"),
    ),  # line
    "power-of-none": (lambda self, x, h: x.n + h**None, ShapeError, ("pow was given None",)),  # line
    "equals": (lambda self, x, h: where(h == x.n, h, x.n), ConcreteValueError, ("==",)),  # line
    "indexed": (lambda self, x, h: x[0], ConcreteValueError, ("indexing", "x.gate")),  # line
    "unpacked": (lambda self, x, h: tanh(*x), ConcreteValueError, ("iteration",)),  # line
    "length": (lambda self, x, h: h * len(h), ConcreteValueError, ("len()",)),  # line
    "rounded": (lambda self, x, h: round(h), ConcreteValueError, ("round()",)),  # line
    "assigned": (lambda self, x, h: setattr(h, "n", 3), ConcreteValueError, ("assignment",)),  # line
    "mask-in-arithmetic": (
        lambda self, x, h: (x.n > 0) * h,
        ShapeError,
        ("A comparison is a mask", "where("),
    ),
    "mask-projected": (lambda self, x, h: (x.n > 0).n, ShapeError, ("a comparison",)),  # line
    "mask-chosen": (
        lambda self, x, h: where(x.n > 0, h > 0, h),
        ShapeError,
        ("A comparison is a mask",),
    ),  # line
    "where-without-mask": (
        lambda self, x, h: where(h, x.n, h),
        ShapeError,
        ("must be a comparison",),
    ),  # line
    "reduction": (
        lambda self, x, h: h - h.mean() + x.n,
        ConcreteValueError,
        ("'mean' is no method", "Use cellwise.mean."),
    ),
    "reduction-of-x": (
        lambda self, x, h: x.n - x.sum(-1),
        ConcreteValueError,
        ("Use cellwise.sum.",),
    ),  # line
    "reduction-by-numpy": (
        lambda self, x, h: np.max(h) * x.n,
        ConcreteValueError,
        ("'max' is no method", "cellwise.amax"),
    ),
    "reduction-by-torch": (
        lambda self, x, h: torch.softmax(h, -1) * x.n,
        ConcreteValueError,
        ("cellwise.softmax instead of torch.softmax",),
    ),
    "layer-norm": (
        lambda self, x, h: F.layer_norm(h, (3,)) + x.n,
        ConcreteValueError,
        ("cellwise.layer_norm instead of F.layer_norm",),
    ),
    "reduction-of-rows": (
        lambda self, x, h: torch.cumsum(h, 0) + x.n,
        ConcreteValueError,
        ("'cumsum' takes many units or rows", "cellwise.sum, mean and amax"),
    ),
    "reduction-of-a-parameter": (
        lambda self, x, h: x.n + h * cellwise.sum(self.u),
        ShapeError,
        ("shape (H,)", "cellwise.sum(x.n)"),
    ),
    "reduced-twice": (
        lambda self, x, h: x.n + h * cellwise.amax(cellwise.mean(h)),
        ShapeError,
        ("shape (B, 1)",),
    ),
    "reduced-state": (lambda self, x, h: cellwise.sum(x.n + h), ReturnError, ("shape (B, 1)",)),
    "reduced-gate": (lambda self, x, h: x.n + cellwise.sum(h).n, ShapeError, ("shape (B, 1)",)),
    "gains": (
        lambda self, x, h: cellwise.layer_norm((x.n, h), gain=(self.u,))[0],
        ShapeError,
        ("2 values are normalized together, and gain has 1",),
    ),
    "reduction-by-python": (
        lambda self, x, h: sum(h) + x.n,
        ConcreteValueError,
        ("cellwise.sum(v)",),
    ),  # line
    "method": (lambda self, x, h: h + x.n.exp(), ConcreteValueError, ("'exp' is no method", "cellwise.exp")),
    "method-in-place": (lambda self, x, h: x.n + h.tanh_(), ConcreteValueError, ("Use cellwise.tanh",)),
    "method-for-a-sign": (lambda self, x, h: h.add(x.n), ConcreteValueError, ("Use +",)),  # line
    "method-detach": (lambda self, x, h: x.n + h.detach(), ConcreteValueError, ("stop_gradient(v)",)),
    "form": (lambda self, x, h: x.n * h.shape[0], ConcreteValueError, ("'shape' belongs to tensors",)),
    "gate-mistyped": (lambda self, x, h: x.nn + h.n, UnknownGateError, ("Did you mean n? Else add",)),  # line
    "unknown-function": (
        lambda self, x, h: F.mish(h) + x.n,  # line
        ConcreteValueError,
        ("softplus", "Vector and Scalar"),
    ),
    "float": (lambda self, x, h: float(h) * x.n, ConcreteValueError, ("float()",)),  # line
    "number-format": (lambda self, x, h: x.n * len(f"{h:.2f}"), ConcreteValueError, ("format",)),  # line
    "in": (lambda self, x, h: x.n if x.n in h else h, ConcreteValueError, ("where",)),  # line
    "chain": (lambda self, x, h: where(0 < h < 1, h, x.n), ConcreteValueError, ("a < b < c",)),  # line
    "undefined-part": (
        lambda self, x, h: self.w * h + x.n,
        StepError,
        ("no attribute 'w'", "w = Vector()", "w: float = 1.0"),
    ),
    "mistyped-part": (lambda self, x, h: self.uu * h + x.n, StepError, ("Did you mean self.u?",)),  # line
    "gate-of-self": (lambda self, x, h: self.n * h + x.n, StepError, ("x.n, h.n",)),  # line
    "state-of-self": (lambda self, x, h: self.h + x.n, StepError, ("argument of step: h",)),  # line
    "undefined-name": (lambda self, x, h: sigmod(x.n), StepError, ("Did you mean sigmoid?",)),  # noqa: F821
    "not-imported": (
        lambda self, x, h: softplus(x.n),  # noqa: F821
        StepError,
        ("from cellwise import softplus",),
    ),
    "undefined-reduction": (lambda self, x, h: mean(x.n), StepError, ("from cellwise import mean",)),  # noqa: F821
    "argument-missing": (lambda self, x, h: where(x.n > 0, h), StepError, ("where(condition, a, b)",)),
    "option-changed": (
        lambda self, x, h: (setattr(self, "rate", 2), h + x.n)[1],
        StepError,
        ("frozen", "name it in states"),
    ),
    "options-changed": (lambda self, x, h: (self.options.update(a=1), h + x.n)[1], StepError, ("update",)),
    "own-error": (lambda self, x, h: x.n * (1 / 0), StepError, ("ZeroDivisionError: division by zero",)),
    "vector-projected": (
        lambda self, x, h: self.u.n + h,
        ShapeError,
        ("shape (H,)", "no projection"),
    ),  # line
}


@pytest.mark.parametrize("name", STEPS)
def test_a_mistake_in_the_step_shows_the_line_and_the_way_out(name: str) -> None:
    step, error, says = STEPS[name]
    cell = type("Mine", (Cell,), {"gates": ("n",), "u": Vector(), "q": Scalar(), "step": step})
    with pytest.raises(error) as raised:
        _ = cell().graph
    text = str(raised.value)
    assert f"{__file__}:{step.__code__.co_firstlineno}:" in text
    assert "lambda self, x, h:" in text, "the line itself is shown"
    for each in says:
        assert each in text
    assert isinstance(raised.value, CellwiseError)


def test_the_line_shown_is_the_one_that_is_wrong_not_the_first() -> None:
    class Long(Cell):
        gates = ("r", "n")

        def step(self, x, h):
            r = x.r + h.r
            return tanh(x.n + r * h.m)

    with pytest.raises(UnknownGateError, match=r"return tanh\(x\.n \+ r \* h\.m\)"):
        _ = Long().graph


def test_the_line_shown_is_that_of_the_users_helper() -> None:
    def helper(v):
        return v + torch.ones(3)

    class Helped(Cell):
        gates = ("n",)

        def step(self, x, h):
            return helper(x.n)

    with pytest.raises(ShapeError, match=r"return v \+ torch\.ones\(3\)"):
        _ = Helped().graph


def test_a_missing_state_names_all_that_are_wanted() -> None:
    class Forgetful(Cell):
        gates = ("n",)
        states = ("h", "c")

        def step(self, x, h, c):
            c = c + x.n
            return tanh(c)

    with pytest.raises(
        ReturnError, match=r"2 values \(h, c\)[\s\S]*return tanh\(c\)[\s\S]*Write: return h, c"
    ):
        _ = Forgetful().graph


def test_a_value_kept_from_another_trace_is_refused() -> None:
    kept = []

    class Keeper(Cell):
        gates = ("n",)

        def step(self, x, h):
            kept.append(h)
            return tanh(x.n + kept[0])

    with pytest.raises(ConcreteValueError, match="another trace"):
        _ = Keeper().graph


def test_unused_gates_and_parameters_are_named() -> None:
    unused_gate = type("A", (Cell,), {"gates": ("n", "m"), "step": lambda self, x, h: x.n + h})
    with pytest.raises(CellDefinitionError, match="gate 'm'"):
        _ = unused_gate().graph
    unused = type("A", (Cell,), {"gates": ("n",), "u": Vector(), "step": lambda self, x, h: x.n + h})
    with pytest.raises(CellDefinitionError, match="parameter 'u'"):
        _ = unused().graph
    # A sum of units is a product with ones, of which nothing is learned.
    for step in (lambda self, x, h: 0.5 * h, lambda self, x, h: h + cumsum(x)):
        nothing = type("A", (Cell,), {"step": step})
        with pytest.raises(CellDefinitionError, match="nothing to learn"):
            _ = nothing().graph


# The body of a class; what the error says.
DEFINITIONS: dict[str, tuple[dict[str, Any], str]] = {
    "gates-not-a-tuple": ({"gates": "n"}, r"gates = 'n'[\s\S]*tuple of names"),
    "states-a-list": ({"states": ["h"]}, r"states = \['h'\]"),
    "no-states": ({"states": (), "step": lambda self, x: x.n}, "has no states"),
    "gate-twice": ({"gates": ("n", "n")}, "twice"),
    "gate-a-keyword": ({"gates": ("in",)}, "'in' among its gates"),
    "gate-with-underscore": ({"gates": ("_n",)}, "'_n' among its gates"),
    "state-not-in-step": (
        {"states": ("h", "c")},
        r"has the states h, c, but its step takes self, x, h[\s\S]*x, h, c",
    ),
    "states-in-another-order": (
        {"states": ("h", "c"), "step": lambda self, x, c, h: (h, c)},
        r"Write: def step\(self, x, h, c\)",
    ),
    "star-arguments": ({"step": lambda self, *values: values[0].n}, r"def step\(self, x, h\)"),
    "argument-too-many": ({"step": lambda self, x, h, k=1: x.n}, r"def step\(self, x, h\)"),
    "parameter-named-as-a-weight": ({"weight_ih": Vector()}, "'weight_ih', which is taken"),
    "parameter-named-as-a-state": ({"h": Vector()}, "'h', which is taken"),
    "parameter-named-as-a-word-of-cell": ({"graph": Vector()}, "'graph', which is taken"),
    "output-is-a-state": ({"output": "h"}, "output = 'h'"),
    "output-not-a-name": ({"output": ("y",)}, r"output = \('y',\)"),
    "option-without-default": ({"__annotations__": {"rate": float}}, r"'rate'[\s\S]*rate: \.\.\. = value"),
    "option-named-as-a-word-of-cell": ({"__annotations__": {"step": int}}, "option 'step', which is taken"),
}


@pytest.mark.parametrize("name", DEFINITIONS)
def test_a_mistake_in_the_class_is_told_when_the_class_is_made(name: str) -> None:
    body, says = DEFINITIONS[name]
    plain = {"gates": ("n",), "step": lambda self, x, h: tanh(x.n + h.n)}
    with pytest.raises(CellDefinitionError, match=says) as raised:
        type("Mine", (Cell,), plain | body)
    assert "Mine" in str(raised.value)


class Options(Cell):
    """One option of each kind."""

    gates = ("n",)
    rate: float = 1
    steps: int = 1
    norm: bool = False
    bound: float | None = None

    def step(self, x, h):
        return tanh(self.rate * self.steps * x.n + h * (self.bound or 1.0) + (h.n if self.norm else 0.0))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"rat": 1.0}, r"'rat' \(its options: rate, steps, norm, bound\)"),
        ({"rate": "fast"}, r"rate='fast' \(it takes a float\)"),
        ({"rate": True}, "rate=True"),
        ({"steps": 0.5}, r"steps=0.5 \(it takes an int\)"),
        ({"norm": 1}, r"norm=1 \(it takes a bool\)"),
        ({"bound": [1]}, "cannot change"),
    ],
)
def test_option_errors(options: dict[str, Any], says: str) -> None:
    with pytest.raises(CellOptionError, match=says):
        Options(**options)


@pytest.mark.parametrize(
    "options", [{}, {"rate": 0.5}, {"rate": 2}, {"steps": 3}, {"norm": True}, {"bound": 0.5}]
)
def test_options_that_fit(options: dict[str, Any]) -> None:
    cell = Options(**options)
    assert cell.options == {"rate": 1, "steps": 1, "norm": False, "bound": None} | options
    assert cell.graph is Options(**options).graph, "equal cells share one graph"
    assert pickle.loads(pickle.dumps(cell)) == cell


def test_choices_are_named() -> None:
    with pytest.raises(CellOptionError, match=r"nonlinearity='gelu' \(choose from tanh, relu\)"):
        cells.RNN(nonlinearity="gelu")


def test_a_cell_is_frozen() -> None:
    with pytest.raises(AttributeError, match="frozen"):
        cells.get("rnn").nonlinearity = "relu"


def test_unknown_names_are_answered_with_the_nearest() -> None:
    with pytest.raises(UnknownCellError, match=r"did you mean 'gru'\?"):
        cellwise.Recurrent("grru", 2, 3)
    with pytest.raises(UnknownCellError, match="No cell is called 'zzz'; the cells are: rnn, lstm,"):
        cells.get("zzz")
    with pytest.raises(TypeError, match="a cell is a name, a Cell class or an instance"):
        cells.get(torch.nn.GRU)  # type: ignore[arg-type]


def test_a_name_that_is_taken_is_refused_and_changes_nothing() -> None:
    class Impostor(Cell):
        name = "GRU"
        gates = ("n",)

        def step(self, x, h):
            return x.n

    with pytest.raises(
        CellDefinitionError, match=r"called 'gru', and so is cellwise\.cells\.gru\.GRU[\s\S]*name = "
    ):
        cells.register(Impostor)
    assert cells.get("gru") == cells.GRU()


def test_a_function_outside_of_a_step_says_where_it_belongs() -> None:
    with pytest.raises(TypeError, match=r"torch\.relu"):
        relu(torch.ones(2))
    with pytest.raises(TypeError, match=r"torch\.exp"):
        exp(1.0)


def test_errors_travel_between_processes() -> None:
    error = UnknownCellError(name="x", hint="", known="gru")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is UnknownCellError
    assert str(again) == str(error)


def test_python_errors_in_a_step_are_the_cause_and_the_line_is_the_innermost_of_the_users() -> None:
    def helper(v):
        return v + {}["missing"]

    cell = type("Mine", (Cell,), {"gates": ("n",), "step": lambda self, x, h: helper(x.n)})
    with pytest.raises(StepError, match=r'return v \+ \{\}\["missing"\]') as raised:
        _ = cell().graph
    assert isinstance(raised.value.__cause__, KeyError)


def test_options_cannot_be_changed_behind_a_cells_back() -> None:
    cell = Options()
    with pytest.raises(TypeError):
        cell.options["rate"] = 2.0
    with pytest.raises(AttributeError, match="frozen"):
        del cell.rate


def test_numbers_of_numpy_are_numbers() -> None:
    cell = type(
        "Mine",
        (Cell,),
        {"gates": ("n",), "step": lambda self, x, h: np.sqrt(0.25) * h + x.n * np.float32(2) - np.int64(1)},
    )
    assert cell().equations == "h' = 0.5 · h + (W_in x + b_in) · 2 − 1"


def test_what_a_step_prints_is_its_equation(capsys: pytest.CaptureFixture[str]) -> None:
    class Printing(Cell):
        gates = ("n",)
        u = Vector()

        def step(self, x, h):
            print(h, f"{tanh(x.n + h.n) * self.u}", x, h > 0)
            return h + self.u * x.n

    _ = Printing().graph
    assert capsys.readouterr().out == (
        "<h, of shape (B, H)> <tanh(W_in x + b_in + W_hn h + b_hn) ⊙ u, of shape (B, H)> "
        "<x, the input; its gates: n> <0 < h, of shape (B, H) mask>\n"
    ), "once, though the step is run twice"


def test_what_is_printed_of_a_deep_value_is_short() -> None:
    class Deep(Cell):
        gates = ("n",)
        seen: str = ""

        def step(self, x, h):
            for _ in range(200):
                h = tanh(h * h + x.n)
            assert len(repr(h)) < 2000
            return h

    _ = Deep().graph
