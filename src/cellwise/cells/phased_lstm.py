from cellwise.cells.base import Cell, Vector
from cellwise.graph.functions import exp, floor, sigmoid, tanh, where


class PhasedLSTM(Cell):
    """LSTM with peepholes whose units are open for a part of a period of their own (Phased LSTM, Neil et al. 2016).

    `dt` is the time since the last step, 1 where a call gives none; the state t is the time itself. The period is
    exp(tau), `shift` the part of it that is over at time 0, `opening` the part in which a unit is open. In training a
    closed unit leaks. The output gate reads the proposed memory, as it does in the authors' code.
    """

    name = "phased-lstm"
    gates = ("i", "f", "g", "o")
    states = ("h", "c", "t")
    inputs = {"dt": 1.0}  # noqa: RUF012  (a table, as gates are)
    p_i, p_f, p_o = Vector(), Vector(), Vector()
    tau = Vector((0.0, 3.0))
    shift = Vector((0.0, 1.0))
    opening = Vector(0.05)
    leak: float = 0.001

    def step(self, x, h, c, t, dt):
        t = t + dt
        turns = t / exp(self.tau) - self.shift
        phase = turns - floor(turns)
        rising, falling = 2 * phase / self.opening, 2 - 2 * phase / self.opening
        closed = self.leak * phase if self.training else 0.0
        k = where(phase < self.opening / 2, rising, where(phase < self.opening, falling, closed))
        i = sigmoid(x.i + h.i + self.p_i * c)
        f = sigmoid(x.f + h.f + self.p_f * c)
        new_c = f * c + i * tanh(x.g + h.g)
        o = sigmoid(x.o + h.o + self.p_o * new_c)
        return k * (o * tanh(new_c)) + (1 - k) * h, k * new_c + (1 - k) * c, t
