from cellwise.cells.base import Cell, Vector
from cellwise.graph.functions import sigmoid, tanh
from cellwise.graph.parts import layer_norm


class LayerNormGRU(Cell):
    """GRU whose input and recurrent input are each normalized (Ba, Kiros and Hinton 2016).

    Both gates are normalized as one row, the candidate as another. What the paper adds after that is one shift for
    each, but two for the candidate, where one is reset. With `bias=True` the biases of a layer are added before: the
    paper has none there.
    """

    name = "layernorm-gru"
    gates = ("r", "z", "n")
    states = ("h",)
    gain_xr, gain_xz, gain_xn = Vector(1.0), Vector(1.0), Vector(1.0)
    gain_hr, gain_hz, gain_hn = Vector(1.0), Vector(1.0), Vector(1.0)
    shift_r, shift_z, shift_xn, shift_hn = Vector(0.0), Vector(0.0), Vector(0.0), Vector(0.0)

    def step(self, x, h):
        xr, xz = layer_norm((x.r, x.z), (self.gain_xr, self.gain_xz))
        hr, hz = layer_norm((h.r, h.z), (self.gain_hr, self.gain_hz))
        r = sigmoid(xr + hr + self.shift_r)
        z = sigmoid(xz + hz + self.shift_z)
        hn = layer_norm(h.n, self.gain_hn, self.shift_hn)
        n = tanh(layer_norm(x.n, self.gain_xn, self.shift_xn) + r * hn)
        return (1 - z) * n + z * h
