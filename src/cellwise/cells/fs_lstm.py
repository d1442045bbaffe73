from cellwise.cells.base import Cell
from cellwise.graph.functions import sigmoid, tanh


class FastSlowLSTM(Cell):
    """Two LSTM steps within a step of time, and between them one of a slow LSTM (Mujika, Meier and Steger 2017).

    Gates s and u are those of the slow cell, which sees the first fast state; v and w those of the second fast step.
    `slow` is the number of units of the slow cell, which has a size of its own in the paper; that of h if None.
    """

    name = "fs-lstm"
    gates = (
        *("i", "f", "g", "o"),
        *("si", "sf", "sg", "so", "ui", "uf", "ug", "uo"),
        *("vi", "vf", "vg", "vo", "wi", "wf", "wg", "wo"),
    )
    states = ("h", "c", "slow_h", "slow_c")
    widths = {"slow_h": "slow", "slow_c": "slow"}  # noqa: RUF012  (a table, as gates are)
    slow: int | str | None = None

    def step(self, x, h, c, slow_h, slow_c):
        fast_c = sigmoid(x.f + h.f) * c + sigmoid(x.i + h.i) * tanh(x.g + h.g)
        fast = sigmoid(x.o + h.o) * tanh(fast_c)
        kept = sigmoid(fast.sf + slow_h.uf) * slow_c
        slow_c = kept + sigmoid(fast.si + slow_h.ui) * tanh(fast.sg + slow_h.ug)
        slow_h = sigmoid(fast.so + slow_h.uo) * tanh(slow_c)
        kept = sigmoid(slow_h.vf + fast.wf) * fast_c
        c = kept + sigmoid(slow_h.vi + fast.wi) * tanh(slow_h.vg + fast.wg)
        return sigmoid(slow_h.vo + fast.wo) * tanh(c), c, slow_h, slow_c
