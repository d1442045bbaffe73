from cellwise.cells.base import Cell
from cellwise.graph.functions import exp, maximum, sigmoid, softplus, tanh


class SLSTM(Cell):
    """LSTM with exponential gates and a normalizer, the scalar part of xLSTM (Beck et al. 2024).

    The state m keeps exponents small and cancels in c / n. Of one head, without a convolution before the gates.
    """

    gates = ("i", "f", "z", "o")
    states = ("h", "c", "n", "m")

    def step(self, x, h, c, n, m):
        log_i = x.i + h.i
        log_f = -softplus(-(x.f + h.f)) + m
        z = tanh(x.z + h.z)
        o = sigmoid(x.o + h.o)
        m = maximum(log_f, log_i)
        i = exp(log_i - m)
        f = exp(log_f - m)
        c = f * c + i * z
        n = f * n + i
        return o * c / n, c, n, m
