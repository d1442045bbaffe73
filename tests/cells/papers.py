"""The equations of the papers that shipped cells are from, in plain torch: for each cell one step on rows of numbers.

`p.x("f")` is W_f x + b_f, `p.h("f", v)` is U_f v + c_f; `p.wx` and `p.uh` are the same without a bias. Other parameters
are attributes, and so is what the step is given beside x.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, sigmoid, tanh
from torch.nn.functional import layer_norm, logsigmoid

import cellwise
from cellwise import cells
from cellwise.graph.forms import stems_of
from cellwise.graph.widths import widths_of


class Parameters:
    """The parameters of a layer, cut into the blocks of its gates, and the input of a step."""

    def __init__(self, layer: cellwise.Recurrent) -> None:
        graph = layer.cell.graph
        blocks = {
            "weight_ih": graph.row_gates("ih"),
            "weight_hh": graph.row_gates("hh"),
            "bias_ih": graph.input_biases,
            "bias_hh": graph.state_biases,
        }
        rows = {gate: units.at(layer.hidden_size) for gate, units in widths_of(graph).gates.items()}
        named = {name.removesuffix("_l0"): value for name, value in layer.named_parameters()}
        assert set(named) == {stem for stem, gates in blocks.items() if gates} | {
            *layer.cell.vectors,
            *layer.cell.scalars,
            *(stem for place, form in graph.forms.items() for stem in stems_of(*place, form)),
            *(f"weight_hh_{gate}" for gate in graph.apart("hh")),
        }
        self._blocks = {
            stem: dict(zip(gates, named[stem].split([rows[gate] for gate in gates]), strict=True))
            for stem, gates in blocks.items()
            if gates
        }
        self._own = named
        self.input = torch.empty(0)
        self.beside: dict[str, Tensor] = {}

    def __getattr__(self, name: str) -> Tensor:
        return self.beside[name] if name in self.beside else self._own[name]

    def _of(self, kind: str, gate: str, value: Tensor, bias: bool) -> Tensor:
        biases = self._blocks.get(f"bias_{kind}", {})
        assert (gate in biases) == bias, f"the bias of {gate}"
        blocks = self._blocks[f"weight_{kind}"]
        weight = blocks[gate] if gate in blocks else self._own[f"weight_{kind}_{gate}"]
        product = value @ weight.t()
        return product + biases[gate] if bias else product

    def x(self, gate: str) -> Tensor:
        return self._of("ih", gate, self.input, True)

    def wx(self, gate: str) -> Tensor:
        return self._of("ih", gate, self.input, False)

    def h(self, gate: str, value: Tensor) -> Tensor:
        return self._of("hh", gate, value, True)

    def uh(self, gate: str, value: Tensor) -> Tensor:
        return self._of("hh", gate, value, False)

    def both(self, gate: str, value: Tensor) -> Tensor:
        return self.x(gate) + self.h(gate, value)


Step = Callable[..., tuple[Tensor, ...]]
# By the name of the cell, and of those with options by the cell.
STEPS: dict[str, Step] = {}
OPTIONS: dict[cellwise.Cell, Step] = {}


def paper(name: str) -> Callable[[Step], Step]:
    def add(step: Step) -> Step:
        STEPS[name] = step
        return step

    return add


def option(cell: cellwise.Cell) -> Callable[[Step], Step]:
    def add(step: Step) -> Step:
        OPTIONS[cell] = step
        return step

    return add


def _mix(gate: Tensor, old: Tensor, new: Tensor) -> Tensor:
    return gate * old + (1 - gate) * new


def _lstm(i: Tensor, f: Tensor, g: Tensor, o: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


# --- the familiar ones --------------------------------------------------------------------------------------------


@paper("rnn")
def _(p: Any, h: Tensor) -> Any:
    return (tanh(p.both("n", h)),)


@paper("lstm")
def _(p: Any, h: Tensor, c: Tensor) -> Any:
    return _lstm(*(p.both(gate, h) for gate in "ifgo"), c)


@paper("gru")
def _(p: Any, h: Tensor) -> Any:
    n = tanh(p.x("n") + sigmoid(p.both("r", h)) * p.h("n", h))
    return (_mix(sigmoid(p.both("z", h)), h, n),)


@paper("gru-reset-before")
def _(p: Any, h: Tensor) -> Any:
    n = tanh(p.both("n", sigmoid(p.both("r", h)) * h))
    return (_mix(sigmoid(p.both("z", h)), h, n),)


@paper("lstm-peephole")
def _(p: Any, h: Tensor, c: Tensor) -> Any:
    new = sigmoid(p.both("f", h) + p.p_f * c) * c + sigmoid(p.both("i", h) + p.p_i * c) * tanh(p.both("g", h))
    return sigmoid(p.both("o", h) + p.p_o * new) * tanh(new), new


@paper("mingru")
def _(p: Any, h: Tensor) -> Any:
    return (h + sigmoid(p.x("z")) * (p.x("n") - h),)


@paper("indrnn")
def _(p: Any, h: Tensor) -> Any:
    return ((p.x("n") + p.u * h).clamp(min=0),)


# --- gated networks -----------------------------------------------------------------------------------------------


@paper("atr")
def _(p: Any, h: Tensor) -> Any:
    a, b = p.x("p"), p.h("p", h)
    return (sigmoid(a + b) * a + sigmoid(a - b) * h,)


@paper("brc")
def _(p: Any, h: Tensor) -> Any:
    a = 1 + tanh(p.x("a") + p.w_a * h)
    return (_mix(sigmoid(p.x("c") + p.w_c * h), h, tanh(p.x("n") + a * h)),)


@paper("nbrc")
def _(p: Any, h: Tensor) -> Any:
    a = 1 + tanh(p.both("a", h))
    return (_mix(sigmoid(p.both("c", h)), h, tanh(p.x("n") + a * h)),)


@paper("cfn")
def _(p: Any, h: Tensor) -> Any:
    return (sigmoid(p.both("f", h)) * tanh(h) + sigmoid(p.both("i", h)) * tanh(p.x("n")),)


@paper("fastrnn")
def _(p: Any, h: Tensor) -> Any:
    return (sigmoid(p.alpha) * tanh(p.both("n", h)) + sigmoid(p.beta) * h,)


@paper("fastgrnn")
def _(p: Any, h: Tensor) -> Any:
    pre = p.wx("n") + p.uh("n", h)
    z = sigmoid(pre + p.b_z)
    return ((sigmoid(p.zeta) * (1 - z) + sigmoid(p.nu)) * tanh(pre + p.b_n) + z * h,)


@paper("lightru")
def _(p: Any, h: Tensor) -> Any:
    return (_mix(sigmoid(p.both("f", h)), tanh(p.x("n")), h),)


@paper("sgrn")
def _(p: Any, h: Tensor) -> Any:
    n = p.x("n")
    return (tanh(_mix(sigmoid(n + p.h("n", h)), h, n)),)


@paper("antisymmetric-rnn")
def _(p: Any, h: Tensor) -> Any:
    w = p.weight_hh_n - p.weight_hh_n.t() - 0.01 * torch.eye(len(p.weight_hh_n), dtype=h.dtype)
    return (h + 0.01 * sigmoid(p.x("z") + h @ w.t()) * tanh(p.x("n") + h @ w.t()),)


@paper("lipschitz-rnn")
def _(p: Any, h: Tensor) -> Any:
    a, w = (
        0.25 * (m + m.t()) + 0.75 * (m - m.t()) - 0.001 * torch.eye(len(m), dtype=h.dtype)
        for m in (p.weight_hh_a, p.weight_hh_n)
    )
    return (h + 0.01 * h @ a.t() + 0.01 * tanh(h @ w.t() + p.x("n")),)


@paper("ligru")
def _(p: Any, h: Tensor) -> Any:
    return (_mix(sigmoid(p.both("z", h)), h, p.both("n", h).relu()),)


@paper("mgu")
def _(p: Any, h: Tensor) -> Any:
    f = sigmoid(p.both("f", h))
    return (_mix(f, tanh(p.both("n", f * h)), h),)


@paper("mgu1")
def _(p: Any, h: Tensor) -> Any:
    f = sigmoid(p.h("f", h))
    return (_mix(f, tanh(p.both("n", f * h)), h),)


@paper("mgu2")
def _(p: Any, h: Tensor) -> Any:
    f = sigmoid(p.uh("f", h))
    return (_mix(f, tanh(p.both("n", f * h)), h),)


@paper("mgu3")
def _(p: Any, h: Tensor) -> Any:
    f = sigmoid(p.b_f)
    return (_mix(f, tanh(p.both("n", f * h)), h),)


@paper("gru1")
def _(p: Any, h: Tensor) -> Any:
    return (_mix(sigmoid(p.h("z", h)), tanh(p.both("n", sigmoid(p.h("r", h)) * h)), h),)


@paper("gru2")
def _(p: Any, h: Tensor) -> Any:
    return (_mix(sigmoid(p.uh("z", h)), tanh(p.both("n", sigmoid(p.uh("r", h)) * h)), h),)


@paper("gru3")
def _(p: Any, h: Tensor) -> Any:
    return (_mix(sigmoid(p.b_z), tanh(p.both("n", sigmoid(p.b_r) * h)), h),)


@paper("minimal-rnn")
def _(p: Any, h: Tensor) -> Any:
    z = tanh(p.x("n"))
    return (_mix(sigmoid(p.h("u", h) + p.uh("m", z)), h, z),)


@paper("mut1")
def _(p: Any, h: Tensor) -> Any:
    new = tanh(p.h("n", sigmoid(p.both("r", h)) * h) + tanh(p.wx("n")))
    return (_mix(sigmoid(p.x("z")), new, h),)


@paper("mut2")
def _(p: Any, h: Tensor) -> Any:
    new = tanh(p.both("n", sigmoid(p.wx("r") + p.h("r", h)) * h))
    return (_mix(sigmoid(p.both("z", h)), new, h),)


@paper("mut3")
def _(p: Any, h: Tensor) -> Any:
    new = tanh(p.both("n", sigmoid(p.both("r", h)) * h))
    return (_mix(sigmoid(p.both("z", tanh(h))), new, h),)


@paper("sgu")
def _(p: Any, h: Tensor) -> Any:
    out = tanh(tanh(p.uh("g", p.x("g") * h)) * h)
    return (_mix(sigmoid(p.both("z", h)), out, h),)


@paper("dsgu")
def _(p: Any, h: Tensor) -> Any:
    out = tanh(p.uh("o", tanh(p.uh("g", p.x("g") * h)) * h))
    return (_mix(sigmoid(p.both("z", h)), out, h),)


@paper("star")
def _(p: Any, h: Tensor) -> Any:
    return (tanh(_mix(sigmoid(p.both("k", h)), tanh(p.x("z")), h)),)


@paper("tau-gru")
def _(p: Any, h: Tensor, second: Tensor, third: Tensor) -> Any:
    g = sigmoid(p.both("g", h))
    new = tanh(p.both("u", h)) + sigmoid(p.both("a", h)) * tanh(p.both("z", third))
    return _mix(g, new, h), h, second


@paper("ugrnn")
def _(p: Any, h: Tensor) -> Any:
    return (_mix(sigmoid(p.both("g", h)), h, tanh(p.both("n", h))),)


@paper("intersection-rnn")
def _(p: Any, h: Tensor) -> Any:
    y = _mix(sigmoid(p.both("v", h)), p.wx("p"), p.both("y", h).relu())
    return y, _mix(sigmoid(p.both("g", h)), h, tanh(p.both("n", h)))


@paper("rhn")
def _(p: Any, h: Tensor, depth: int = 3) -> Any:
    h = _mix(sigmoid(p.both("t1", h)), tanh(p.both("h1", h)), h)
    for level in range(2, depth + 1):
        h = _mix(sigmoid(p.h(f"t{level}", h)), tanh(p.h(f"h{level}", h)), h)
    return (h,)


# --- multiplied inputs and states -----------------------------------------------------------------------------------


@paper("multiplicative-rnn")
def _(p: Any, h: Tensor) -> Any:
    return (tanh(p.x("n") + p.uh("n", p.wx("m") * p.uh("m", h))),)


@paper("multiplicative-lstm")
def _(p: Any, h: Tensor, c: Tensor) -> Any:
    m = p.wx("m") * p.uh("m", h)
    return _lstm(*(p.both(gate, m) for gate in "ifgo"), c)


@paper("mi-rnn")
def _(p: Any, h: Tensor) -> Any:
    u, v = p.wx("n"), p.uh("n", h)
    return (tanh(p.a * u * v + p.b_x * u + p.b_h * v + p.b),)


@paper("mi-gru")
def _(p: Any, h: Tensor) -> Any:
    def gate(name: str, h: Tensor) -> Tensor:
        u, v = p.wx(name), p.uh(name, h)
        a, b, c, d = (getattr(p, f"{letter}_{name}") for letter in "axhb")
        return a * u * v + b * u + c * v + d

    return (_mix(sigmoid(gate("z", h)), h, tanh(gate("n", sigmoid(gate("r", h)) * h))),)


@paper("delta-rnn")
def _(p: Any, h: Tensor) -> Any:
    u, v = p.wx("n"), p.uh("n", h)
    z = tanh(p.a * u * v + p.b_h * v + p.b_x * u + p.b_z)
    return (tanh(_mix(sigmoid(u + p.b_r), h, z)),)


# --- memory cells -------------------------------------------------------------------------------------------------


@paper("lstm-original")
def _(p: Any, h: Tensor, c: Tensor) -> Any:
    c = c + sigmoid(p.both("i", h)) * tanh(p.both("g", h))
    return sigmoid(p.both("o", h)) * tanh(c), c


@paper("lstm-slim1")
def _(p: Any, h: Tensor, c: Tensor) -> Any:
    return _lstm(p.h("i", h), p.h("f", h), p.both("g", h), p.h("o", h), c)


@paper("lstm-slim2")
def _(p: Any, h: Tensor, c: Tensor) -> Any:
    return _lstm(p.uh("i", h), p.uh("f", h), p.both("g", h), p.uh("o", h), c)


@paper("lstm-slim3")
def _(p: Any, h: Tensor, c: Tensor) -> Any:
    return _lstm(p.b_i, p.b_f, p.both("g", h), p.b_o, c)


@paper("lstm-residual")
def _(p: Any, h: Tensor, c: Tensor) -> Any:
    new = sigmoid(p.both("f", h) + p.p_f * c) * c + sigmoid(p.both("i", h) + p.p_i * c) * tanh(p.both("g", h))
    return sigmoid(p.both("o", h) + p.p_o * new) * (p.uh("p", tanh(new)) + p.wx("p")), new


@paper("lstm-wmc")
def _(p: Any, h: Tensor, c: Tensor) -> Any:
    i, f = (sigmoid(p.both(gate, h) + tanh(p.h(f"m{gate}", c))) for gate in "if")
    c = f * c + i * tanh(p.both("g", h))
    return sigmoid(p.both("o", h) + tanh(p.h("mo", c))) * tanh(c), c


@paper("lstm-nested")
def _(p: Any, h: Tensor, c: Tensor, n: Tensor) -> Any:
    i, f, g, o = (p.both(gate, h) for gate in "ifgo")
    read, kept = sigmoid(i) * tanh(g), sigmoid(f) * c
    c, n = _lstm(*(p.h(f"a{gate}", read) + p.h(f"b{gate}", kept) for gate in "ifgo"), n)
    return sigmoid(o) * tanh(c), c, n


@option(cells.FastSlowLSTM(slow=6))
@paper("fs-lstm")
def _(p: Any, h: Tensor, c: Tensor, slow_h: Tensor, slow_c: Tensor) -> Any:
    def two(inputs: str, x: Tensor, states: str, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
        return _lstm(*(p.h(inputs + gate, x) + p.h(states + gate, h) for gate in "ifgo"), c)

    h, c = _lstm(*(p.both(gate, h) for gate in "ifgo"), c)
    slow_h, slow_c = two("s", h, "u", slow_h, slow_c)
    return *two("v", slow_h, "w", h, c), slow_h, slow_c


@paper("indylstm")
def _(p: Any, h: Tensor, c: Tensor) -> Any:
    return _lstm(*(p.x(gate) + getattr(p, f"u_{gate}") * h for gate in "ifgo"), c)


@paper("cifg")
def _(p: Any, h: Tensor, c: Tensor) -> Any:
    c = _mix(sigmoid(p.both("f", h)), c, tanh(p.both("g", h)))
    return sigmoid(p.both("o", h)) * tanh(c), c


@paper("slstm")
def _(p: Any, h: Tensor, c: Tensor, n: Tensor, m: Tensor) -> Any:
    i, f = p.both("i", h), logsigmoid(p.both("f", h))
    new = torch.maximum(f + m, i)
    i, f = (i - new).exp(), (f + m - new).exp()
    c, n = f * c + i * tanh(p.both("z", h)), f * n + i
    return sigmoid(p.both("o", h)) * (c / n), c, n, new


@paper("onlstm")
def _(p: Any, h: Tensor, c: Tensor) -> Any:
    f, i, o = (sigmoid(p.both(gate, h)) for gate in "fio")
    master_f = torch.cumsum(torch.softmax(p.both("forget", h), -1), -1)
    master_i = 1 - torch.cumsum(torch.softmax(p.both("enter", h), -1), -1)
    both = master_f * master_i
    f, i = f * both + (master_f - both), i * both + (master_i - both)
    c = f * c + i * tanh(p.both("n", h))
    return o * tanh(c), c


@paper("minlstm")
def _(p: Any, h: Tensor) -> Any:
    f, i = sigmoid(p.x("f")), sigmoid(p.x("i"))
    return (f / (f + i) * h + i / (f + i) * p.x("n"),)


@paper("janet")
def _(p: Any, h: Tensor) -> Any:
    s = p.both("s", h)
    return (sigmoid(s) * h + (1 - sigmoid(s - 1.0)) * tanh(p.both("n", h)),)


@paper("ran")
def _(p: Any, h: Tensor, c: Tensor) -> Any:
    c = sigmoid(p.both("i", h)) * p.wx("n") + sigmoid(p.both("f", h)) * c
    return tanh(c), c


@paper("nas")
def _(p: Any, h: Tensor, c: Tensor) -> Any:
    a, b, d, f, g, i, j = (p.both(gate, h) for gate in "abdfgij")
    e = p.x("e") * p.h("e", h)
    left, right = tanh(sigmoid(a) * b.relu()), tanh(sigmoid(d) + e.relu())
    c = tanh(left + c) * right
    return tanh(c * tanh(tanh(tanh(f) * sigmoid(g)) + sigmoid(tanh(i) + sigmoid(j)))), c


@option(cells.SCRN(context=3))
@option(cells.SCRN(context="2 * H"))
@paper("scrn")
def _(p: Any, h: Tensor, s: Tensor) -> Any:
    s = 0.05 * p.wx("s") + 0.95 * s
    h = sigmoid(p.uh("m", s) + p.both("n", h))
    return p.h("o", h) + p.uh("p", s), h, s


# --- no product in time -------------------------------------------------------------------------------------------


@paper("trnn")
def _(p: Any, h: Tensor) -> Any:
    return (_mix(sigmoid(p.x("f")), h, p.wx("n")),)


@paper("tgru")
def _(p: Any, h: Tensor, *before: Tensor) -> Any:
    z, f, o = (p.x(gate) + old for gate, old in zip("zfo", before, strict=True))
    return sigmoid(f) * h + z * tanh(o), *(p.wx(gate) for gate in "pqr")


@paper("tlstm")
def _(p: Any, c: Tensor, *before: Tensor) -> Any:
    z, f, o = (p.x(gate) + old for gate, old in zip("zfo", before, strict=True))
    c = _mix(sigmoid(f), c, z)
    return c * tanh(o), c, *(p.wx(gate) for gate in "pqr")


@paper("qrnn")
def _(p: Any, c: Tensor, *before: Tensor) -> Any:
    z, f, o = (p.x(gate) + old for gate, old in zip("zfo", before, strict=True))
    c = _mix(sigmoid(f), c, tanh(z))
    return sigmoid(o) * c, c, *(p.wx(gate) for gate in "pqr")


@paper("sru")
def _(p: Any, c: Tensor) -> Any:
    r = sigmoid(p.x("r") + p.v_r * c)
    c = _mix(sigmoid(p.x("f") + p.v_f * c), c, p.wx("n"))
    return _mix(r, c, p.wx("p")), c


@paper("gilr")
def _(p: Any, h: Tensor) -> Any:
    return (_mix(sigmoid(p.x("g")), h, tanh(p.x("i"))),)


@paper("lru")
def _(p: Any, h: Tensor, s: Tensor) -> Any:
    eigenvalue = torch.polar((-p.nu.exp()).exp(), p.theta)
    state = eigenvalue * torch.complex(h, s)
    state = state + (1 - eigenvalue.abs() ** 2).sqrt() * torch.complex(p.wx("a"), p.wx("b"))
    return p.uh("c", state.real) - p.uh("d", state.imag) + p.wx("y"), state.real, state.imag


@paper("rg-lru")
def _(p: Any, h: Tensor) -> Any:
    a = sigmoid(-p.decay) ** (8.0 * sigmoid(p.x("a")))
    return (a * h + (1 - a**2).sqrt() * sigmoid(p.x("i")) * p.wx("n"),)


@paper("rwkv")
def _(p: Any, a: Tensor, b: Tensor, m: Tensor) -> Any:
    k, v = p.wx("k").exp(), p.wx("v")
    # Without the exponents that the cell keeps apart.
    a, b, w = a * m.exp(), b * m.exp(), (-p.decay.exp()).exp()
    y = (a + p.first.exp() * k * v) / (b + p.first.exp() * k)
    new = torch.maximum(m - p.decay.exp(), p.wx("k"))
    return sigmoid(p.wx("r")) * y, (w * a + k * v) / new.exp(), (w * b + k) / new.exp(), new


# --- in continuous time, and others -------------------------------------------------------------------------------


@paper("cornn")
def _(p: Any, y: Tensor, z: Tensor) -> Any:
    z = z + 0.1 * (tanh(p.both("n", y) + p.uh("v", z)) - y - z)
    return y + 0.1 * z, z


@paper("unicornn")
def _(p: Any, y: Tensor, z: Tensor) -> Any:
    z = z - 0.1 * sigmoid(p.k) * tanh(p.w * y + p.x("n"))
    return y + 0.1 * sigmoid(p.k) * z, z


@paper("lem")
def _(p: Any, y: Tensor, z: Tensor) -> Any:
    step, other = sigmoid(p.both("a", y)), sigmoid(p.both("b", y))
    z = _mix(step, tanh(p.both("z", y)), z)
    return _mix(other, tanh(p.both("n", z)), y), z


@paper("jordan")
def _(p: Any, y: Tensor) -> Any:
    return (sigmoid(p.h("o", sigmoid(p.both("n", y)))),)


@paper("leaky-rnn")
def _(p: Any, h: Tensor) -> Any:
    return (0.9 * h + 0.1 * tanh(p.both("n", h)),)


@paper("ctrnn")
def _(p: Any, h: Tensor) -> Any:
    return (h + 0.1 * (-h + p.uh("n", tanh(h)) + p.x("n")) / p.tau,)


@paper("ltc")
def _(p: Any, h: Tensor) -> Any:
    f = sigmoid(p.both("f", h))
    return ((h + f * p.a) / (1 + 1 / p.tau + f),)


@paper("cfc")
def _(p: Any, h: Tensor) -> Any:
    return (_mix(sigmoid(-p.both("f", h)), tanh(p.both("g", h)), tanh(p.both("n", h))),)


# --- all units together, time, and chance --------------------------------------------------------------------------


def _normalized(values: list[Tensor], gains: list[Tensor]) -> tuple[Tensor, ...]:
    """Some gates as one row."""
    row, gain = torch.cat(values, -1), torch.cat(gains)
    return layer_norm(row, row.shape[-1:], gain).chunk(len(values), -1)


def _norm_of(p: Any, side: str, gates: str, value: Tensor | None) -> tuple[Tensor, ...]:
    values = [p.x(gate) if value is None else p.h(gate, value) for gate in gates]
    return _normalized(values, [getattr(p, f"gain_{side}{gate}") for gate in gates])


@paper("layernorm-lstm")
def _(p: Any, h: Tensor, c: Tensor) -> Any:
    both = zip(_norm_of(p, "x", "ifgo", None), _norm_of(p, "h", "ifgo", h), strict=True)
    i, f, g, o = (a + b + getattr(p, f"shift_{gate}") for gate, (a, b) in zip("ifgo", both, strict=True))
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(layer_norm(c, c.shape[-1:], p.gain_c, p.shift_c)), c


@paper("layernorm-gru")
def _(p: Any, h: Tensor) -> Any:
    both = zip(_norm_of(p, "x", "rz", None), _norm_of(p, "h", "rz", h), strict=True)
    r, z = (sigmoid(a + b + getattr(p, f"shift_{gate}")) for gate, (a, b) in zip("rz", both, strict=True))
    (of_x,), (of_h,) = _norm_of(p, "x", "n", None), _norm_of(p, "h", "n", h)
    return (_mix(z, h, tanh(of_x + p.shift_xn + r * (of_h + p.shift_hn))),)


# What is expected of those that draw numbers in training: what they compute in evaluation.


def _plain_lstm(p: Any, h: Tensor, c: Tensor) -> tuple[Tensor, ...]:
    return _lstm(*(p.both(gate, h) for gate in "ifgo"), c)


@paper("zoneout-lstm")
def _(p: Any, h: Tensor, c: Tensor) -> Any:
    new_h, new_c = _plain_lstm(p, h, c)
    return 0.05 * h + 0.95 * new_h, (c + new_c) / 2


paper("recurrent-dropout-lstm")(_plain_lstm)
paper("variational-lstm")(_plain_lstm)


@paper("time-aware-lstm")
def _(p: Any, h: Tensor, c: Tensor) -> Any:
    short = tanh(p.h("s", c))
    return _plain_lstm(p, h, c - short + short / (math.e + p.dt).log())


@paper("gru-d")
def _(p: Any, h: Tensor) -> Any:
    decayed = h / (p.w_d * p.dt + p.b_d).clamp(min=0).exp()
    r, z = sigmoid(p.both("r", decayed)), sigmoid(p.both("z", decayed))
    return (_mix(z, tanh(p.x("n") + p.h("n", r * decayed)), decayed),)


@paper("gru-ode")
def _(p: Any, h: Tensor) -> Any:
    r, z = sigmoid(p.both("r", h)), sigmoid(p.both("z", h))
    slope = (1 - z) * (tanh(p.x("n") + p.h("n", r * h)) - h)
    return (h + p.dt * slope,)


@paper("phased-lstm")
def _(p: Any, h: Tensor, c: Tensor, t: Tensor) -> Any:
    # The paper's s is a time, ours a part of the period; after training nothing leaks.
    now, period = t + p.dt, p.tau.exp()
    s = p.shift * period
    phase = torch.remainder(now - s, period) / period
    rising, falling = 2 * phase / p.opening, 2 - 2 * phase / p.opening
    k = torch.where(phase < p.opening / 2, rising, torch.where(phase < p.opening, falling, 0 * phase))
    i, f = (sigmoid(p.both(gate, h) + own * c) for gate, own in (("i", p.p_i), ("f", p.p_f)))
    proposed = f * c + i * tanh(p.both("g", h))
    o = sigmoid(p.both("o", h) + p.p_o * proposed)
    return _mix(k, o * tanh(proposed), h), _mix(k, proposed, c), now


@paper("hawkes-lstm")
def _(p: Any, c: Tensor, target: Tensor, rate: Tensor, o: Tensor) -> Any:
    c = target + (c - target) / (rate * p.dt).exp()
    h = o * (2 * sigmoid(2 * c) - 1)
    i, f, of_i, of_f, o = (sigmoid(p.both(gate, h)) for gate in ("i", "f", "ti", "tf", "o"))
    z = 2 * sigmoid(p.both("z", h)) - 1
    c, target, rate = f * c + i * z, of_f * target + of_i * z, (1 + p.both("d", h).exp()).log()
    return o * tanh(c), c, target, rate, o


@paper("hgrn")
def _(p: Any, h: Tensor) -> Any:
    low, i = sigmoid(p.bound), p.x("i")
    h = _mix(low + (1 - low) * sigmoid(p.x("f")), h, i * sigmoid(i))
    return sigmoid(p.x("g")) * h, h


def _narx(p: Any, *older: Tensor, delays: int = 3) -> Any:
    gates = ["n", *(f"n{delay}" for delay in range(2, delays + 1))]
    total = p.x("n") + sum(p.h(g, v) if g == "n" else p.uh(g, v) for g, v in zip(gates, older, strict=True))
    return tanh(total), *older[:-1]


def _mist(p: Any, *older: Tensor, delays: int = 4) -> Any:
    h = older[0]
    chosen = torch.stack([older[2**i - 1] for i in range(delays)], -1)  # (B, H, delays)
    shares = torch.cat([p.both(f"a{2**i}", h) for i in range(delays)], -1).softmax(-1)
    mixed = (chosen @ shares[:, :, None]).squeeze(-1)
    return tanh(p.x("n") + p.h("n", sigmoid(p.both("r", h)) * mixed)), *older[:-1]


paper("narx")(_narx)
paper("mist")(_mist)


@paper("hyper-lstm")
def _(p: Any, h: Tensor, c: Tensor, small_h: Tensor, small_c: Tensor) -> Any:
    sums = []
    for gate in "ifgo":  # equations 11 and 12
        z_h, z_x = p.h(f"zh_{gate}", small_h), p.h(f"zx_{gate}", small_h)
        z_b = p.uh(f"zb_{gate}", small_h)
        by_h, by_x = p.uh(f"dh_{gate}", z_h), p.uh(f"dx_{gate}", z_x)
        sums.append(by_h * p.uh(gate, h) + by_x * p.wx(gate) + p.h(f"db_{gate}", z_b))
    small = (p.x(f"p{gate}") + p.uh(f"p{gate}", small_h) + p.uh(f"q{gate}", h) for gate in "ifgo")
    return *_lstm(*sums, c), *_lstm(*small, small_c)


def _lmu(p: Any, h: Tensor, m: Tensor, theta: float = 100.0) -> Any:
    order = m.shape[1]
    i, j = torch.arange(order, dtype=h.dtype)[:, None], torch.arange(order, dtype=h.dtype)
    a = (2 * i + 1) * torch.where(i < j, -1.0, (-1.0) ** (i - j + 1)) / theta
    b = (2 * i + 1) * (-1.0) ** i / theta
    # A step in which u stays: exp(A), and A^-1 (exp(A) - 1) B.
    whole = torch.linalg.matrix_exp(a)
    held = torch.linalg.solve(a, (whole - torch.eye(order, dtype=h.dtype)) @ b)
    u = p.wx("u") + p.uh("u", h) + p.uh("v", m)
    m = m @ whole.t() + u @ held.t()
    return tanh(p.wx("n") + p.uh("n", h) + p.uh("k", m)), m


paper("lmu")(_lmu)


# --- forms that are options ---------------------------------------------------------------------------------------


@option(cells.AntisymmetricRNN(step_size=0.3, diffusion=0.2, gated=False))
def _(p: Any, h: Tensor) -> Any:
    w = p.weight_hh_n - p.weight_hh_n.t() - 0.2 * torch.eye(4, dtype=h.dtype)
    return (h + 0.3 * tanh(p.x("n") + h @ w.t()),)


@option(cells.FastGRNN(rank=2))
def _(p: Any, h: Tensor) -> Any:
    pre = p.input @ (p.weight_ih_n_left @ p.weight_ih_n_right).t()
    pre = pre + h @ (p.weight_hh_n_left @ p.weight_hh_n_right).t()
    z = sigmoid(pre + p.b_z)
    return ((sigmoid(p.zeta) * (1 - z) + sigmoid(p.nu)) * tanh(pre + p.b_n) + z * h,)


@option(cells.SLSTM(heads=2, arrives_ready=True))
def _(p: Any, h: Tensor, c: Tensor, n: Tensor, m: Tensor) -> Any:
    sums = []
    for number, gate in enumerate("ifzo"):
        given = p.bias_hh.chunk(4)[number] + p.input.chunk(4, -1)[number]
        # Head by head, each of its own two units.
        heads = [h[:, 2 * k : 2 * k + 2] @ getattr(p, f"weight_hh_{gate}")[k].t() for k in range(2)]
        sums.append(torch.cat(heads, -1) + given)
    i, f, z, o = sums
    f = logsigmoid(f)
    new = torch.maximum(f + m, i)
    i, f = (i - new).exp(), (f + m - new).exp()
    c, n = f * c + i * tanh(z), f * n + i
    return sigmoid(o) * (c / n), c, n, new


@option(cells.LiGRU(arrives_ready=True))
def _(p: Any, h: Tensor) -> Any:
    of_z, of_n = p.input.chunk(2, -1)
    return (_mix(sigmoid(of_z + p.h("z", h)), h, (of_n + p.h("n", h)).relu()),)


@option(cells.SRU(raw=True))
def _(p: Any, c: Tensor) -> Any:
    r = sigmoid(p.x("r") + p.v_r * c)
    c = _mix(sigmoid(p.x("f") + p.v_f * c), c, p.wx("n"))
    return _mix(r, c, p.input), c


@option(cells.IntersectionRNN(raw=True))
def _(p: Any, h: Tensor) -> Any:
    y = _mix(sigmoid(p.both("v", h)), p.input, p.both("y", h).relu())
    return y, _mix(sigmoid(p.both("g", h)), h, tanh(p.both("n", h)))


@option(cells.MUT1(raw=True))
def _(p: Any, h: Tensor) -> Any:
    n = tanh(p.h("n", sigmoid(p.both("r", h)) * h) + tanh(p.input))
    return (_mix(sigmoid(p.x("z")), n, h),)


@option(cells.MUT2(raw=True))
def _(p: Any, h: Tensor) -> Any:
    n = tanh(p.both("n", sigmoid(p.input + p.h("r", h)) * h))
    return (_mix(sigmoid(p.both("z", h)), n, h),)


for _depth in (1, 5):
    option(cells.RHN(depth=_depth))(partial(STEPS["rhn"], depth=_depth))

for _delays in (1, 6, 70):  # more products than a byte can tell apart
    option(cells.NARX(delays=_delays))(partial(_narx, delays=_delays))
option(cells.LMU(order=5, theta=3))(partial(_lmu, theta=3.0))
for _delays in (1, 3):
    option(cells.MIST(delays=_delays))(partial(_mist, delays=_delays))
