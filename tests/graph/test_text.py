"""How graphs are written down."""

from __future__ import annotations

import pytest

from cellwise import Cell, Scalar, Vector, cells, exp, sigmoid, tanh, where
from cellwise.graph import equations, listing
from cellwise.understand.latex import latex

_GATES = """\
i = σ(W_ii x + b_ii + W_hi h + b_hi)
f = σ(W_if x + b_if + W_hf h + b_hf)
g = tanh(W_ig x + b_ig + W_hg h + b_hg)
o = σ(W_io x + b_io + W_ho h + b_ho)
"""
_LSTM = f"{_GATES}c' = f ⊙ c + i ⊙ g\nh' = o ⊙ tanh(c')"
EQUATIONS = {
    "rnn": "h' = tanh(W_in x + b_in + W_hn h + b_hn)",
    "lstm": _LSTM,
    "recurrent-dropout-lstm": _LSTM,
    "variational-lstm": _LSTM,
    "zoneout-lstm": f"""\
{_GATES}memory = f ⊙ c + i ⊙ g
h' = 0.05 · h + 0.95 · o ⊙ tanh(memory)
c' = 0.5 · c + 0.5 · memory""",
    "time-aware-lstm": f"""\
short = tanh(W_hs c + b_hs)
{_GATES}c' = f ⊙ (c − short + short / log(2.71828 + dt)) + i ⊙ g
h' = o ⊙ tanh(c')""",
    "gru": """\
r = σ(W_ir x + b_ir + W_hr h + b_hr)
z = σ(W_iz x + b_iz + W_hz h + b_hz)
n = tanh(W_in x + b_in + r ⊙ (W_hn h + b_hn))
h' = (1 − z) ⊙ n + z ⊙ h""",
    "gru-reset-before": """\
r = σ(W_ir x + b_ir + W_hr h + b_hr)
z = σ(W_iz x + b_iz + W_hz h + b_hz)
n = tanh(W_in x + b_in + W_hn (r ⊙ h) + b_hn)
h' = (1 − z) ⊙ n + z ⊙ h""",
    "lstm-peephole": """\
i = σ(W_ii x + b_ii + W_hi h + b_hi + p_i ⊙ c)
f = σ(W_if x + b_if + W_hf h + b_hf + p_f ⊙ c)
g = tanh(W_ig x + b_ig + W_hg h + b_hg)
c' = f ⊙ c + i ⊙ g
o = σ(W_io x + b_io + W_ho h + b_ho + p_o ⊙ c')
h' = o ⊙ tanh(c')""",
    "mingru": """\
z = σ(W_iz x + b_iz)
h' = (1 − z) ⊙ h + z ⊙ (W_in x + b_in)""",
    "indrnn": "h' = relu(W_in x + b_in + u ⊙ h)",
    "layernorm-lstm": """\
v1 = mean(W_ii x + b_ii + W_if x + b_if + W_ig x + b_ig + W_io x + b_io) · 0.25
v2 = 1 / sqrt(mean((W_ii x + b_ii − v1) ⊙ (W_ii x + b_ii − v1) + (W_if x + b_if − v1) ⊙ (W_if x + b_if − v1) + \
(W_ig x + b_ig − v1) ⊙ (W_ig x + b_ig − v1) + (W_io x + b_io − v1) ⊙ (W_io x + b_io − v1)) · 0.25 + 1e-05)
xi = (W_ii x + b_ii − v1) · v2 ⊙ gain_xi
xf = (W_if x + b_if − v1) · v2 ⊙ gain_xf
xg = (W_ig x + b_ig − v1) · v2 ⊙ gain_xg
xo = (W_io x + b_io − v1) · v2 ⊙ gain_xo
v3 = mean(W_hi h + b_hi + W_hf h + b_hf + W_hg h + b_hg + W_ho h + b_ho) · 0.25
v4 = W_hi h + b_hi − v3
v5 = W_hf h + b_hf − v3
v6 = W_hg h + b_hg − v3
v7 = W_ho h + b_ho − v3
v8 = 1 / sqrt(mean(v4 ⊙ v4 + v5 ⊙ v5 + v6 ⊙ v6 + v7 ⊙ v7) · 0.25 + 1e-05)
hi = v4 · v8 ⊙ gain_hi
hf = v5 · v8 ⊙ gain_hf
hg = v6 · v8 ⊙ gain_hg
ho = v7 · v8 ⊙ gain_ho
i = σ(xi + hi + shift_i)
f = σ(xf + hf + shift_f)
g = tanh(xg + hg + shift_g)
o = σ(xo + ho + shift_o)
c' = f ⊙ c + i ⊙ g
v9 = c' − mean(c')
h' = o ⊙ tanh(v9 · 1 / sqrt(mean(v9 ⊙ v9) + 1e-05) ⊙ gain_c + shift_c)""",
    "layernorm-gru": """\
v1 = mean(W_ir x + b_ir + W_iz x + b_iz) · 0.5
v2 = 1 / sqrt(mean((W_ir x + b_ir − v1) ⊙ (W_ir x + b_ir − v1) + (W_iz x + b_iz − v1) ⊙ (W_iz x + b_iz − v1)) · 0.5 \
+ 1e-05)
xr = (W_ir x + b_ir − v1) · v2 ⊙ gain_xr
xz = (W_iz x + b_iz − v1) · v2 ⊙ gain_xz
v3 = mean(W_hr h + b_hr + W_hz h + b_hz) · 0.5
v4 = W_hr h + b_hr − v3
v5 = W_hz h + b_hz − v3
v6 = 1 / sqrt(mean(v4 ⊙ v4 + v5 ⊙ v5) · 0.5 + 1e-05)
hr = v4 · v6 ⊙ gain_hr
hz = v5 · v6 ⊙ gain_hz
r = σ(xr + hr + shift_r)
z = σ(xz + hz + shift_z)
v7 = W_hn h + b_hn − mean(W_hn h + b_hn)
hn = v7 · 1 / sqrt(mean(v7 ⊙ v7) + 1e-05) ⊙ gain_hn + shift_hn
v8 = W_in x + b_in − mean(W_in x + b_in)
n = tanh(v8 · 1 / sqrt(mean(v8 ⊙ v8) + 1e-05) ⊙ gain_xn + shift_xn + r ⊙ hn)
h' = (1 − z) ⊙ n + z ⊙ h""",
}


def test_every_familiar_cell_has_its_equations_here() -> None:
    assert set(EQUATIONS) >= set(cells.FAMILIAR)


@pytest.mark.parametrize("name", EQUATIONS)
def test_equations(name: str) -> None:
    assert cells.get(name).equations == EQUATIONS[name]


def test_equations_without_bias() -> None:
    assert equations(cells.get("gru").graph, bias=False).splitlines()[2] == "n = tanh(W_in x + r ⊙ W_hn h)"


def test_brackets_stand_where_they_must_and_nowhere_else() -> None:
    class Brackets(Cell):
        gates = ("n",)
        u = Vector()
        q = Scalar()

        def step(self, x, h):
            a = h - (self.u - h)
            b = h / (self.u / h)
            c = -(h + self.u)
            d = -h * self.u
            e = self.u + -h
            f = (h + self.u) * self.q
            g = abs(h - self.u)
            k = where(h < self.u + h, 2 * h, h)
            m = (h + self.u) - h + exp(h * 0.5)
            return x.n + a + b + c + d + e + f + g + k + m

    lines = dict(line.split(" = ") for line in Brackets().equations.splitlines())
    assert {name: lines[name] for name in "abcdefgkm"} == {
        "a": "h − (u − h)",
        "b": "h / (u / h)",
        "c": "−(h + u)",
        "d": "−h ⊙ u",
        "e": "u + (−h)",
        "f": "(h + u) · q",
        "g": "|h − u|",
        "k": "(2 · h if h < u + h else h)",
        "m": "h + u − h + exp(h · 0.5)",
    }


def test_powers_and_their_brackets() -> None:
    class Powers(Cell):
        gates = ("n",)

        def step(self, x, h):
            a, b = (1 + h**2) ** -1.5, 2 ** abs(h)
            c = -(a**b) * (h**4.0) ** 3
            return x.n + a + b + c + (a * b) ** 0.5

    assert Powers().equations.splitlines() == [
        "a = (1 + h ⊙ h)^-1.5",
        "b = 2^|h|",
        "c = −a^b ⊙ h^4 ⊙ h^4 ⊙ h^4",
        "h' = W_in x + b_in + a + b + c + sqrt(a ⊙ b)",
    ]
    written = latex(Powers().graph)
    assert "a_t &= {(1 + h_{t-1} \\odot h_{t-1})}^{-1.5}" in written
    assert "b_t &= {2}^{\\lvert h_{t-1} \\rvert}" in written


def test_what_is_used_twice_and_has_no_name_is_written_once() -> None:
    class Twice(Cell):
        gates = ("n",)

        def step(self, x, h):
            return tanh(x.n + h) ** 2

    assert Twice().equations == "v1 = tanh(W_in x + b_in + h)\nh' = v1 ⊙ v1"


def test_states_that_are_passed_on() -> None:
    class Swap(Cell):
        gates = ("n",)
        states = ("h", "c")

        def step(self, x, h, c):
            return c, h + x.n

    assert Swap().equations == "c' = h + W_in x + b_in\nh' = c"


def test_an_output_of_its_own_is_y() -> None:
    class Read(Cell):
        gates = ("n",)
        output = "read"

        def step(self, x, h):
            h = tanh(x.n + h.n)
            return sigmoid(h), h

    assert Read().equations == "h' = tanh(W_in x + b_in + W_hn h + b_hn)\ny = σ(h')"


def test_a_long_unrolled_step_is_written_in_lines_one_can_read() -> None:
    class Unrolled(Cell):
        gates = ("n",)

        def step(self, x, h):
            for _ in range(500):
                h = tanh(h * h + h)
            return h + x.n

    lines = Unrolled().equations.splitlines()
    assert lines[1] == "v2 = tanh(v1 ⊙ v1 + v1)"
    assert max(map(len, lines)) < 60


def test_a_listing_has_a_line_for_each_node_with_the_users_line() -> None:
    lines = listing(cells.get("rnn").graph).splitlines()
    assert lines[0] == "RNN  gates n  states h"
    assert lines[-1] == "return h' = %4"
    assert [line.split()[2] for line in lines[1:-1]] == ["input", "state", "project", "add", "tanh"]
    assert lines[4].split("#")[0].split() == ["%3", "=", "add", "%0", "%2", "(B,", "H)"]
    assert lines[5].endswith("return activation(x.n + h.n)")
