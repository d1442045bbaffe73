from cellwise.cells.base import Cell
from cellwise.graph.functions import exp, maximum, sigmoid, softplus, tanh
from cellwise.graph.gates import block_diagonal, ready


class SLSTM(Cell):
    """LSTM with exponential gates and a normalizer, the scalar part of xLSTM (Beck et al. 2024).

    The state m keeps exponents small and cancels in c / n. Units see those of their own head alone, of one head unless
    `heads` says more. With `arrives_ready` the input is the gates' own, (T, B, 4H), made by what stands before the
    layer: in the paper's blocks a convolution for two of them, and projections of each head.
    """

    gates = ("i", "f", "z", "o")
    states = ("h", "c", "n", "m")
    heads: int = 1
    arrives_ready: bool = False

    def step(self, x, h, c, n, m):
        given = ready if self.arrives_ready else lambda gate: gate
        log_i = given(x.i) + block_diagonal(h.i, self.heads)
        log_f = -softplus(-(given(x.f) + block_diagonal(h.f, self.heads))) + m
        z = tanh(given(x.z) + block_diagonal(h.z, self.heads))
        o = sigmoid(given(x.o) + block_diagonal(h.o, self.heads))
        m = maximum(log_f, log_i)
        i = exp(log_i - m)
        f = exp(log_f - m)
        c = f * c + i * z
        n = f * n + i
        return o * c / n, c, n, m
