"""Cells that nobody ships, to be seen in every view."""

from __future__ import annotations

from cellwise import (
    Cell,
    Scalar,
    Vector,
    cells,
    clamp,
    exp,
    maximum,
    sigmoid,
    softplus,
    stop_gradient,
    tanh,
    where,
)


class ThreeStates(Cell):
    """Fast and slow memory; gates and states with long names."""

    gates = ("forget_gate", "write", "b")
    states = ("h", "fast", "slow")
    decay = Vector((0.1, 0.9))

    def step(self, x, h, fast, slow):
        forget = sigmoid(x.forget_gate + h.forget_gate)
        write = tanh(x.write + h.write)
        fast = forget * fast + (1 - forget) * write
        slow = self.decay * slow + (1 - self.decay) * fast
        h = sigmoid(x.b + h.b) * tanh(fast + slow)
        return h, fast, slow


class LeakyClamp(Cell):
    """A scalar, a choice and bounds; nothing recurrent but the decay."""

    gates = ("n",)
    beta = Scalar(1.0)

    def step(self, x, h):
        decay = exp(-abs(self.beta))
        a = where(x.n > 0, x.n, 0.1 * x.n)
        return clamp(decay * h + a, -1.0, 1.0)


class ExponentialLSTM(Cell):
    """Exponential gates with a stabiliser (the sLSTM of Beck et al. 2024)."""

    gates = ("i", "f", "z", "o")
    states = ("h", "c", "n", "m")

    def step(self, x, h, c, n, m):
        log_f = -softplus(-(x.f + h.f))
        log_i = x.i + h.i
        m_new = maximum(log_f + m, log_i)
        i = exp(log_i - m_new)
        f = exp(log_f + m - m_new)
        c = f * c + i * tanh(x.z + h.z)
        n = f * n + i
        return sigmoid(x.o + h.o) * c / n, c, n, m_new


class ReadOut(Cell):
    """An output that is no state, one gate that multiplies several values, and a gradient that is stopped."""

    gates = ("a",)
    states = ("h", "s")
    output = "y"

    def step(self, x, h, s):
        u = tanh(x.a + h.a)
        w = tanh(s.a + u)
        return sigmoid(u * w), u, 0.5 * s + stop_gradient(w)


STRANGERS = (ThreeStates, LeakyClamp, ExponentialLSTM, ReadOut)
ALL: list[Cell] = [cells.get(name) for name in cells.FAMILIAR] + [kind() for kind in STRANGERS]
IDS = [cell.name for cell in ALL]
